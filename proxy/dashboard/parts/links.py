"""Names that lead to the page of what they name, with the same filters."""

from django.urls import reverse
from django.utils.translation import gettext as _

from proxy.dashboard.parts.filters import Filters
from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.parts.tables import Cell
from proxy.models import NO_MODEL, ExhaustionEvent


def model_link(name: str, filters: Filters) -> Cell:
    """Return a model's name. Usage that was imported without one is as if it named none."""
    name = name or NO_MODEL
    return Cell(model_name(name), href=reverse("proxy:models") + filters.query(model=name))


def rested_model(event: ExhaustionEvent, filters: Filters) -> Cell:
    """Return the name of the model that is exhausted, unless all are."""
    return model_link(event.model_name, filters) if event.model_name else Cell(_("all models"))


def project_link(project_id: int, name: str, filters: Filters) -> Cell:
    """Return a project's name, which leads to its keys."""
    return Cell(name, href=reverse("proxy:keys") + filters.query(project=project_id, key=""))


def key_address(key_id: int, filters: Filters) -> str:
    """Return where a key is shown."""
    return reverse("proxy:key", args=[key_id]) + filters.query(key="")

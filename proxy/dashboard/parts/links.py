"""Links from names to their pages, with the current filters."""

from django.urls import reverse
from django.utils.translation import gettext as _

from proxy.dashboard.parts.filters import Filters
from proxy.dashboard.parts.formats import model_name
from proxy.dashboard.parts.tables import Cell
from proxy.models import NO_MODEL, ExhaustionEvent


def model_link(name: str, filters: Filters) -> Cell:
    """Return a model's name with a link to its page. Usage imported without a name counts as no model."""
    name = name or NO_MODEL
    return Cell(model_name(name), href=reverse("proxy:models") + filters.query(model=name))


def exhausted_model(event: ExhaustionEvent, filters: Filters) -> Cell:
    """Return the model of an event, or "all models"."""
    return model_link(event.model_name, filters) if event.model_name else Cell(_("all models"))


def project_link(project_id: int, name: str, filters: Filters) -> Cell:
    """Return a project's name with a link to its keys."""
    return Cell(name, href=reverse("proxy:keys") + filters.query(project=project_id, key=""))


def key_address(key_id: int, filters: Filters) -> str:
    """Return the address of a key's page."""
    return reverse("proxy:key", args=[key_id]) + filters.query(key="")

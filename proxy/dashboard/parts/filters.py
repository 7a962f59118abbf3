"""What a page is about, as its address says; kept from page to page."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeVar
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext as _

from proxy.dashboard.reports.period import DAYS, LONGEST_DAYS, Period
from proxy.models import ApiKey, GeminiModel, Project

RANGES = ("24h", *DAYS)
_Row = TypeVar("_Row", Project, ApiKey)


@dataclass(frozen=True, slots=True)
class Filters:
    """A period, the words for what it is about, and what was wrong with the address, if anything."""

    period: Period
    project: Project | None
    key: ApiKey | None
    models: list[str]
    problem: str

    def query(self, **changes: object) -> str:
        """Return the filters as the end of an address ("?range=7d&model=…"), with changes; "" leaves one out."""
        period = self.period
        values: dict[str, object] = {"range": period.name, "model": period.model_name}
        values |= {"project": period.project_id, "key": period.key_id}
        if period.name == "custom":
            values |= {"from": period.first, "to": period.last}
        values |= changes
        return "?" + urlencode([(name, str(value)) for name, value in values.items() if value])

    @property
    def here(self) -> str:
        return self.query()

    @property
    def ranges(self) -> list[tuple[str, str, bool]]:
        """The ranges to choose from: name, address, whether it is the one."""
        kept = {"from": "", "to": ""}
        return [(name, self.query(range=name, **kept), name == self.period.name) for name in RANGES]

    @property
    def without(self) -> list[tuple[str, str]]:
        """What the page is narrowed to, each with the address of the page without it."""
        period = self.period
        named = [
            (period.model_name, self.query(model="")),
            (str(self.project or ""), self.query(project="")),
            (self.key.label if self.key else "", self.query(key="")),
        ]
        return [(name, address) for name, address in named if name]

    @property
    def about_models(self) -> str:
        """What numbers of models mean that are narrowed to some keys; "" if they are not."""
        if not self.period.has_keys:
            return ""
        return _(
            "Tries of these keys, by whole quota days; refused: Google's 429. "
            "Times to the first byte are known of the whole pool only."
        )


def read_filters(request: HttpRequest, moment: datetime, default: str = "24h") -> Filters:
    """Return what the address asks for; what makes no sense in it is told in `problem`, and left out. Three queries."""
    problems: list[str] = []
    given = request.GET
    project = _found(Project, given.get("project", ""), _("There is no such project."), problems)
    key = _found(ApiKey, given.get("key", ""), _("There is no such key."), problems)
    of: dict[str, str | int] = {
        "model_name": given.get("model", "")[:200],
        "project_id": project.pk if project else 0,
        "key_id": key.pk if key else 0,
    }
    name = given.get("range", default)
    period = None
    if name == "custom":
        try:
            first, last = date.fromisoformat(given.get("from", "")), date.fromisoformat(given.get("to", ""))
        except ValueError:
            problems.append(_("Write both days like 2026-11-25."))
        else:
            if 0 <= (last - first).days < LONGEST_DAYS and first.year > 2000 and last.year < 2200:
                period = Period.of_days(first, last, settings.QUOTA_ZONE, "custom", **of)
            else:
                problems.append(_("The first day must come before the last, within two years."))
    elif name not in RANGES:
        problems.append(_("There is no such range."))
    period = period or Period.ending(moment, name if name in RANGES else default, settings.QUOTA_ZONE, **of)
    models = list(GeminiModel.objects.order_by("model_name").values_list("model_name", flat=True))
    return Filters(period, project, key, models, " ".join(problems))


def _found(model: type[_Row], text: str, problem: str, problems: list[str]) -> _Row | None:
    if not text:
        return None
    manager = model._default_manager
    found = manager.filter(pk=int(text)).first() if text.isascii() and text.isdigit() and len(text) < 19 else None
    if found is None:
        problems.append(problem)
    return found

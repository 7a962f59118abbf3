"""The filters in the address of a page: a period, a model, a project and a key. Links keep them from page to page."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.dashboard.reports.period import DAYS, LONGEST_DAYS, Period
from proxy.models import ApiKey, GeminiModel, Project

RANGES = ("24h", *DAYS)
# A whole number in an address, such as the id of a row. It fits into a column of the database.
NumberField = partial(forms.IntegerField, min_value=0, max_value=2**63 - 1, required=False)


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a page."""

    period: Period
    # Those of `period`.
    project: Project | None
    key: ApiKey | None
    # All model names, to choose from.
    models: list[str]
    # What is wrong with the address, "" if nothing is.
    problem: str

    def query(self, **changes: object) -> str:
        """Return the filters as a query string ("?range=7d&model=…"), with changes; "" removes a filter."""
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
        """The ranges to choose from: name, address, whether it is the current one."""
        kept = {"from": "", "to": ""}
        return [(name, self.query(range=name, **kept), name == self.period.name) for name in RANGES]

    @property
    def without(self) -> list[tuple[str, str]]:
        """The active filters, each with the address of the page without it."""
        period = self.period
        named = [
            (period.model_name, self.query(model="")),
            (str(self.project or ""), self.query(project="")),
            (self.key.label if self.key else "", self.query(key="")),
        ]
        return [(name, address) for name, address in named if name]

    @property
    def about_models(self) -> str:
        """A note on numbers by model when they are about one key or project; otherwise ""."""
        if not self.period.has_keys:
            return ""
        return _(
            "Attempts with these keys, by whole quota days. Refused means a 429 from Google. "
            "Times to the first byte are measured for the whole pool only."
        )


class FilterForm(forms.Form):
    """The filters as people write them in an address: range, from, to, model, project, key."""

    range = forms.ChoiceField(
        choices=[(name, name) for name in (*RANGES, "custom")],
        required=False,
        error_messages={"invalid_choice": gettext_lazy("There is no such range.")},
    )
    model = forms.CharField(max_length=200, required=False)
    project = forms.ModelChoiceField(
        Project.objects.all(),
        required=False,
        error_messages={"invalid_choice": gettext_lazy("There is no such project.")},
    )
    key = forms.ModelChoiceField(
        ApiKey.objects.all(),
        required=False,
        error_messages={"invalid_choice": gettext_lazy("There is no such key.")},
    )

    def __init__(self, data: QueryDict) -> None:
        super().__init__(data)
        if data.get("range") == "custom":
            problem = dict.fromkeys(("required", "invalid"), _("Write both days as 2026-11-25."))
            for name in ("from", "to"):
                self.fields[name] = forms.DateField(input_formats=["%Y-%m-%d"], error_messages=problem)

    def clean(self) -> dict[str, Any]:
        first, last = self.cleaned_data.get("from"), self.cleaned_data.get("to")
        if first and last and not (0 <= (last - first).days < LONGEST_DAYS and first.year > 2000 and last.year < 2200):
            del self.cleaned_data["from"]
            self.add_error(None, _("The first day must come before the last, within two years."))
        return self.cleaned_data


def read_filters(request: HttpRequest, moment: datetime) -> Filters:
    """Return the filters in the address. Invalid ones are ignored, and named in `problem`. Three queries."""
    form = FilterForm(request.GET)
    form.is_valid()
    values = form.cleaned_data
    project, key = values.get("project"), values.get("key")
    of: dict[str, str | int] = {
        "model_name": values.get("model", ""),
        "project_id": project.pk if project else 0,
        "key_id": key.pk if key else 0,
    }
    if "from" in values and "to" in values:
        period = Period.of_days(values["from"], values["to"], settings.QUOTA_ZONE, "custom", **of)
    else:
        name = values.get("range") if values.get("range") in RANGES else RANGES[0]
        period = Period.ending(moment, str(name), settings.QUOTA_ZONE, **of)
    models = list(GeminiModel.objects.order_by("model_name").values_list("model_name", flat=True))
    return Filters(period, project, key, models, " ".join(problems_in(form)))


def problems_in(form: forms.Form) -> list[str]:
    """Return what is wrong with the values of a form, each problem once."""
    return list(dict.fromkeys(str(problem) for problems in form.errors.values() for problem in problems))

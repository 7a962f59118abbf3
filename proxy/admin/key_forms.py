"""How keys are added and changed: forms."""

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.models import ApiKey
from proxy.pool.key_file import KeyLines, read_keys

if TYPE_CHECKING:  # Django's class takes a model only in the stubs
    KeyForm = forms.ModelForm[ApiKey]
else:
    KeyForm = forms.ModelForm


class ChangeKeyForm(KeyForm):
    """A key's name, and its project by name."""

    project_name = forms.CharField(
        label=gettext_lazy("Google project"),
        max_length=100,
        required=False,
        help_text=gettext_lazy(
            "Its number, or any name. Quotas belong to projects: keys of one share them and rest together. "
            "Left empty, it is filled in when Google names it in an error."
        ),
    )

    class Meta:
        model = ApiKey
        fields = ["name", "is_enabled"]
        labels = {"name": gettext_lazy("Name")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["project_name"] = self.instance.project.name


class PastedKeys(forms.Textarea):
    """A textarea that never shows what was sent: a page shows no key, not even one that was just pasted."""

    def format_value(self, value: Any) -> str | None:
        return ""


class NewKeysForm(ChangeKeyForm):
    """One key, or many, in a textarea. left_out: numbers of malformed lines that the person was shown."""

    secrets = forms.CharField(
        label=gettext_lazy("API keys"),
        widget=PastedKeys(
            attrs={"class": "vLargeTextField keys", "rows": 8, "spellcheck": "false", "autocomplete": "off"}
        ),
        help_text=gettext_lazy(
            "One key a line, as Google AI Studio shows them, or as you keep them: CSV, JSON, NAME=key. A name beside "
            "a key is kept. Lines that begin with # and keys that are here already do no harm. A key cannot be read "
            "again later. More quota comes with more projects, not with more keys of one: paste keys of different "
            "projects one project at a time, if you know which is which."
        ),
    )
    left_out = forms.CharField(required=False)

    class Meta(ChangeKeyForm.Meta):
        fields = ["name"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "secrets" not in cleaned:
            return cleaned
        lines: KeyLines = read_keys(cleaned["secrets"])
        shown = set(re.findall(r"\d+", cleaned.get("left_out", "")))
        if refused := [str(number) for number in lines.malformed if str(number) not in shown]:
            told = _("These lines are no keys: %(numbers)s.") % {"numbers": _(", ").join(refused)}
            self.add_error("secrets", [told, _("Nothing was added. Paste the keys again, without these lines.")])
        elif not lines.found:
            self.add_error("secrets", _("There is no key here."))
        cleaned["lines"] = lines
        return cleaned

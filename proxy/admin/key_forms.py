"""Forms that add and change keys."""

import re
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from proxy.models import ApiKey
from proxy.pool.key_file import KeyLines, read_keys


class ChangeKeyForm(forms.ModelForm[ApiKey]):
    """A key's name, and its project's name."""

    project_name = forms.CharField(
        label=gettext_lazy("Google project"),
        max_length=100,
        required=False,
        help_text=gettext_lazy(
            "The project's number, or any name. Quotas belong to projects, so keys of one project share them. "
            "If you leave this empty, it is filled in once Google names the project in an error."
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
    """A textarea that never shows its content again: no page shows a key, not even one that was just pasted."""

    def format_value(self, value: Any) -> str | None:
        return ""


class NewKeysForm(ChangeKeyForm):
    """One or many keys, pasted into a textarea."""

    secrets = forms.CharField(
        label=gettext_lazy("API keys"),
        widget=PastedKeys(
            attrs={"class": "vLargeTextField keys", "rows": 8, "spellcheck": "false", "autocomplete": "off"}
        ),
        help_text=gettext_lazy(
            "One key per line, as Google AI Studio shows them, or in your own format: CSV, JSON, NAME=key. A name next "
            "to a key is kept. Lines that start with # and keys that are in the pool already are skipped. Nobody can "
            "read a key here again. Quotas belong to projects, so more keys of one project bring no more quota. If "
            "you know the projects of your keys, paste the keys of one project at a time."
        ),
    )
    # Numbers of malformed lines that the user has been shown.
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
            problem = _("These lines are not keys: %(numbers)s.") % {"numbers": _(", ").join(refused)}
            self.add_error("secrets", [problem, _("Nothing was added. Paste the keys again, without these lines.")])
        elif not lines.found:
            self.add_error("secrets", _("No key found."))
        cleaned["lines"] = lines
        return cleaned

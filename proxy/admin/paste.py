"""A preview of pasted keys, line by line, before they are added. It contains no secret."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Self

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from proxy.models import ApiKey
from proxy.pool.adding import find_known
from proxy.pool.key_file import FoundKey, KeyLines, read_keys
from proxy.pool.summary import summary
from proxy.security.masking import last_four, mask_text

MOST_LINES = 300  # shown in the preview


class Verdict(Enum):
    """What happens to a line, as a shape and in words."""

    NEW = gettext_lazy("● new")
    ODD = gettext_lazy("● new, but does not look like AIza… or AQ.…")
    KNOWN = gettext_lazy("○ already in the pool")
    REPEATED = gettext_lazy("○ repeated from a line above")
    MALFORMED = gettext_lazy("✕ not a key, skipped")

    @property
    def words(self) -> Promise:
        value: Promise = self.value
        return value


class Line(NamedTuple):
    """A key in the pasted text, or a malformed line."""

    # From 1.
    number: int
    # The key's name and last four characters.
    label: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Preview:
    """What adding pasted keys would do."""

    read: KeyLines
    lines: list[Line]
    project: str

    @classmethod
    def of(cls, text: str, project: str) -> Self:
        """Preview the keys in `text`. project: the name of their project, "" if unknown."""
        read = read_keys(text)
        known = find_known(read.secrets)
        seen: set[str] = set()
        lines = [Line(number, "", Verdict.MALFORMED) for number in read.malformed]
        for key in read.found:
            lines.append(Line(key.line, f"{key.name} {last_four(key.secret)}".strip(), _verdict(key, known, seen)))
            seen.add(key.secret)
        lines.sort(key=lambda line: line.number)
        return cls(read, lines, project.replace("\0", "").strip())

    @property
    def count(self) -> Counter[Verdict]:
        return Counter(line.verdict for line in self.lines)

    @property
    def new(self) -> int:
        return self.count[Verdict.NEW] + self.count[Verdict.ODD]

    @property
    def malformed(self) -> list[int]:
        """The numbers of the lines that should contain a key and do not."""
        return self.read.malformed

    @property
    def shown(self) -> list[Line]:
        """The lines to show, in order. If there are more than `MOST_LINES`, malformed ones take precedence."""
        by_weight = sorted(self.lines, key=lambda line: line.verdict is not Verdict.MALFORMED)
        return sorted(by_weight[:MOST_LINES], key=lambda line: line.number)

    @property
    def not_shown(self) -> int:
        return max(len(self.lines) - MOST_LINES, 0)

    @property
    def button(self) -> str:
        """The text of the button that adds the keys; "" when there is nothing to add."""
        return ngettext("Add this key", "Add these %(count)d keys", self.new) % {"count": self.new} if self.new else ""

    def summary(self) -> str:
        """Return a summary: how many keys of each kind, and the project of the new ones; "" for an empty text."""
        if not self.lines:
            return ""
        text = summary(self.read, self.new, self.count[Verdict.KNOWN], is_done=False)
        return f"{text} {self._destination()}" if self.new else text

    def _destination(self) -> str:
        if not self.project:
            return _("Their project is unknown: each key counts as a separate project until Google names it.")
        name = mask_text(self.project)
        if size := ApiKey.objects.present().filter(project__name=self.project).count():
            text = ngettext(
                "They will be added to project %(name)s, which has %(count)d key.",
                "They will be added to project %(name)s, which has %(count)d keys.",
                size,
            )
            return text % {"name": name, "count": size}
        return _("They will be added to project %(name)s, which has no keys yet.") % {"name": name}


def _verdict(key: FoundKey, known: set[str], seen: set[str]) -> Verdict:
    if key.secret in seen:
        return Verdict.REPEATED
    if key.secret in known:
        return Verdict.KNOWN
    return Verdict.ODD if key.is_odd else Verdict.NEW

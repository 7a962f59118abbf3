"""What pasted keys are, one by one, before they are added. No secret is in what is said of them."""

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

MOST_LINES = 300  # that are shown; a person reads no more


class Verdict(Enum):
    """What becomes of a line, as a shape and in words."""

    NEW = gettext_lazy("● new")
    ODD = gettext_lazy("● new, although neither like AIza… nor like AQ.…")
    KNOWN = gettext_lazy("○ known: it is in the pool already")
    REPEATED = gettext_lazy("○ repeated: it stands further up")
    MALFORMED = gettext_lazy("✕ malformed: no key, left out")

    @property
    def words(self) -> Promise:
        value: Promise = self.value
        return value


class Line(NamedTuple):
    """A key in a pasted line, or a malformed one. number: from 1. label: a key's name and last four characters."""

    number: int
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
        """Look at the keys in `text`; writes nothing. project: the name of their project, "" if not known."""
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
        """The numbers of lines that should hold a key and do not."""
        return self.read.malformed

    @property
    def shown(self) -> list[Line]:
        """The lines to be shown, in order: at most `MOST_LINES`, malformed ones before all others."""
        by_weight = sorted(self.lines, key=lambda line: line.verdict is not Verdict.MALFORMED)
        return sorted(by_weight[:MOST_LINES], key=lambda line: line.number)

    @property
    def not_shown(self) -> int:
        return max(len(self.lines) - MOST_LINES, 0)

    @property
    def button(self) -> str:
        """What the button says that adds the keys; "" when there is nothing to add."""
        return ngettext("Add this key", "Add these %(count)d keys", self.new) % {"count": self.new} if self.new else ""

    def told(self) -> str:
        """Return how many keys are what, and which project the new ones go to; "" when there are none."""
        if not self.lines:
            return ""
        told = summary(self.read, self.new, self.count[Verdict.KNOWN], is_done=False)
        return f"{told} {self._destination()}" if self.new else told

    def _destination(self) -> str:
        if not self.project:
            return _("Their project is not known: each counts as a project of its own until Google names it.")
        name = mask_text(self.project)
        if size := ApiKey.objects.present().filter(project__name=self.project).count():
            told = ngettext(
                "They go to the project %(name)s, which has %(count)d key.",
                "They go to the project %(name)s, which has %(count)d keys.",
                size,
            )
            return told % {"name": name, "count": size}
        return _("They go to the project %(name)s, which has no keys yet.") % {"name": name}


def _verdict(key: FoundKey, known: set[str], seen: set[str]) -> Verdict:
    if key.secret in seen:
        return Verdict.REPEATED
    if key.secret in known:
        return Verdict.KNOWN
    return Verdict.ODD if key.is_odd else Verdict.NEW

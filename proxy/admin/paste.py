"""What pasted keys are, line by line, before they are added. No secret is in what is said of them."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Self

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from proxy.keyfile import POSSIBLE_SECRET, read_lines
from proxy.masking import KEY_SHAPE, last_four, mask_text
from proxy.models import ApiKey
from proxy.pool import find_known

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
    """A pasted line that is neither blank nor a comment. number: from 1."""

    number: int
    masked: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Preview:
    """What adding pasted keys would do."""

    lines: list[Line]
    project: str

    @classmethod
    def of(cls, text: str, project: str) -> Self:
        """Look at `text`, one key a line; writes nothing. project: the name of their project, "" if not known."""
        found = list(read_lines(text))
        known = find_known(list({secret for _number, secret in found if POSSIBLE_SECRET.fullmatch(secret)}))
        seen: set[str] = set()
        lines = []
        for number, secret in found:
            lines.append(Line(number, last_four(secret), _verdict(secret, known, seen)))
            seen.add(secret)
        return cls(lines, project.replace("\0", "").strip())

    @property
    def count(self) -> Counter[Verdict]:
        return Counter(line.verdict for line in self.lines)

    @property
    def new(self) -> int:
        return self.count[Verdict.NEW] + self.count[Verdict.ODD]

    @property
    def malformed(self) -> list[int]:
        """The numbers of lines that are no keys."""
        return [line.number for line in self.lines if line.verdict is Verdict.MALFORMED]

    @property
    def shown(self) -> list[Line]:
        """The lines to be shown, in order: at most `MOST_LINES`, malformed ones before all others."""
        by_weight = sorted(self.lines, key=lambda line: line.verdict is not Verdict.MALFORMED)
        return sorted(by_weight[:MOST_LINES])

    @property
    def not_shown(self) -> int:
        return max(len(self.lines) - MOST_LINES, 0)

    @property
    def button(self) -> str:
        """What the button says that adds the keys; "" when there is nothing to add."""
        return ngettext("Add this key", "Add these %(count)d keys", self.new) % {"count": self.new} if self.new else ""

    def told(self) -> str:
        """Return how many lines are what, and which project the new keys go to; "" when there are none."""
        if not self.lines:
            return ""
        counts = [
            _("%(count)d new") % {"count": self.new},
            _("%(count)d known") % {"count": self.count[Verdict.KNOWN]},
            *([_("%(count)d repeated") % {"count": repeated}] if (repeated := self.count[Verdict.REPEATED]) else []),
            _("%(count)d malformed") % {"count": len(self.malformed)},
        ]
        told = _("%(told)s.") % {"told": _(", ").join(counts)}
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


def _verdict(secret: str, known: set[str], seen: set[str]) -> Verdict:
    if not POSSIBLE_SECRET.fullmatch(secret):
        return Verdict.MALFORMED
    if secret in seen:
        return Verdict.REPEATED
    if secret in known:
        return Verdict.KNOWN
    return Verdict.NEW if KEY_SHAPE.fullmatch(secret) else Verdict.ODD

"""The table of the simulation: the figures of both phases, beside their targets."""

from math import ceil
from typing import NamedTuple

from bench.goodput_figures import Figures

_LEAST_SHARE_UNKNOWN, _LEAST_SHARE_KNOWN = 0.97, 0.99
_MOST_REFUSED = 0.001
_COLUMNS = ("", "limits unknown", "target", "limits known", "target")


class _Target(NamedTuple):
    words: str = ""
    is_met: bool = True

    def __str__(self) -> str:
        return self.words if self.is_met else f"{self.words} MISSED"


class _Row(NamedTuple):
    """A figure of both phases, with its targets."""

    name: str
    unknown: str
    known: str
    of_unknown: _Target = _Target()
    of_known: _Target = _Target()


def table(unknown: Figures, known: Figures) -> tuple[str, bool]:
    """Return the table as aligned text, and whether all targets are met."""
    rows = _rows(unknown, known)
    cells = [_COLUMNS, *((row.name, row.unknown, str(row.of_unknown), row.known, str(row.of_known)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if number in (1, 3) else cell.ljust(width) for number, cell, width in line).rstrip()
        for line in (zip(range(len(widths)), cells_of_line, widths, strict=True) for cells_of_line in cells)
    ]
    return "\n".join(lines), all(row.of_unknown.is_met and row.of_known.is_met for row in rows)


def _rows(unknown: Figures, known: Figures) -> list[_Row]:
    least = _Target(f">= {_LEAST_SHARE_UNKNOWN:.0%}", unknown.share >= _LEAST_SHARE_UNKNOWN)
    least_known = _Target(f">= {_LEAST_SHARE_KNOWN:.0%}", known.share >= _LEAST_SHARE_KNOWN)
    to_learn = _Target("<= in flight", unknown.refused <= unknown.in_flight)
    few = _Target(f"<= {_MOST_REFUSED:.1%}", known.refused <= _MOST_REFUSED * known.requests)
    return [
        _Row("requests", f"{unknown.requests:,}", f"{known.requests:,}"),
        _Row("answers possible", f"{unknown.possible:,}", f"{known.possible:,}"),
        _Row("answers", f"{unknown.answered:,}", f"{known.answered:,}"),
        _Row("answers, share of the possible", f"{unknown.share:.1%}", f"{known.share:.1%}", least, least_known),
        _Row("429s received", _share(unknown.refused, unknown), _share(known.refused, known), to_learn, few),
        _Row("in flight when limits were reached", str(unknown.in_flight), str(known.in_flight)),
        _Row("errors of clients", _errors(unknown), _errors(known)),
        _Row(
            "... although there was room in time",
            str(unknown.avoidable),
            str(known.avoidable),
            _Target("none", not unknown.avoidable),
        ),
        _Row("... that the omniscient scheduler served", str(unknown.served_otherwise), str(known.served_otherwise)),
        _Row("answers that waited", f"{len(unknown.waits):,}", f"{len(known.waits):,}"),
        *(
            _Row(f"... {name}, s", f"{_at(share, unknown.waits):.2f}", f"{_at(share, known.waits):.2f}")
            for name, share in (("p50", 0.5), ("p95", 0.95), ("longest", 1.0))
        ),
    ]


def _share(count: int, figures: Figures) -> str:
    return f"{count} ({count / figures.requests:.2%})"


def _errors(figures: Figures) -> str:
    return ", ".join(f"{count} x {said}" for said, count in figures.errors.most_common()) or "none"


def _at(share: float, ordered: list[float]) -> float:
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0

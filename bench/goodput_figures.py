"""The figures of the simulation, and what is demanded of them."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from bench.goodput_load import Outcome
from bench.goodput_possible import Wish, serve
from tests.fake_gemini import Decision

# What is shorter is the time of a transaction.
_SHORTEST_WAIT_SECONDS = 0.1


class Phase(NamedTuple):
    """What clients saw, what the upstream had decided before, and what it decided meanwhile."""

    outcomes: list[Outcome]
    past: list[Decision]
    decisions: list[Decision]


class Figures(NamedTuple):
    """The figures of a phase.

    possible: answers that an omniscient scheduler would have got. refused: 429s drawn. most_of_one: how many of them
    the same project, model and window drew at most. avoidable: errors for which there was room within the client's
    patience, and nobody took it. served_otherwise: errors of requests that the omniscient scheduler serves, in place of
    others that it does not. waits: seconds, of the answers that waited for a key, in order.
    """

    requests: int
    possible: int
    answered: int
    refused: int
    most_of_one: int
    errors: Counter[str]
    avoidable: int
    served_otherwise: int
    waits: list[float]

    @property
    def share(self) -> float:
        return self.answered / self.possible


def figures_of(phase: Phase) -> Figures:
    """Count what a phase has shown."""
    failed = [outcome for outcome in phase.outcomes if not outcome.is_answered]
    refused = [decision for decision in phase.decisions if decision.violated]
    drawn = _drawn(refused, phase.past)
    outcomes = sorted(phase.outcomes, key=_wish)
    is_served = [moment < inf for moment in serve(map(_wish, outcomes), phase.past)]
    return Figures(
        requests=len(phase.outcomes),
        possible=sum(is_served),
        answered=len(phase.outcomes) - len(failed),
        refused=len(refused),
        most_of_one=max(drawn.values(), default=0),
        errors=Counter(outcome.said for outcome in failed),
        avoidable=_count_room(failed, [*phase.past, *phase.decisions]),
        served_otherwise=sum(
            not outcome.is_answered and served for outcome, served in zip(outcomes, is_served, strict=True)
        ),
        waits=sorted(
            seconds
            for outcome in phase.outcomes
            if outcome.is_answered and (seconds := _waited_seconds(outcome)) > _SHORTEST_WAIT_SECONDS
        ),
    )


def _count_room(failed: Iterable[Outcome], decisions: Iterable[Decision]) -> int:
    """Return for how many of these there was room beside all that was decided, before and after."""
    return sum(moment < inf for moment in serve(sorted(map(_wish, failed)), decisions))


def _wish(outcome: Outcome) -> Wish:
    return Wish(outcome.moment, outcome.model, outcome.tokens)


def _drawn(refused: Iterable[Decision], past: Iterable[Decision]) -> Counter[tuple[str, str, str]]:
    """Return how many 429s each project, model and window drew.

    A 429 that names several windows counts for those that no 429 had named before, or else for all of them.
    """
    told = {name for decision in past for name in _windows(decision)}
    drawn: Counter[tuple[str, str, str]] = Counter()
    for decision in refused:
        names = _windows(decision)
        drawn.update(names - told or names)
        told |= names
    return drawn


def _windows(decision: Decision) -> set[tuple[str, str, str]]:
    return {(decision.project, decision.model, window) for window in decision.violated}


def _waited_seconds(outcome: Outcome) -> float:
    return float(outcome.headers.get("x-waited-seconds", 0))

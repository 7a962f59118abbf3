"""The figures of the simulation, and what is demanded of them."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from bench.goodput_load import Outcome
from bench.goodput_possible import ClaimRequest, serve
from tests.fake_gemini import Decision

# What is shorter is the time of a transaction.
_SHORTEST_WAIT_SECONDS = 0.1
# How long every answer of the upstream takes to begin, and how long it takes to learn from one.
FIRST_BYTE_SECONDS, _BOOKING_SECONDS = 0.3, 0.1


class Phase(NamedTuple):
    """What clients saw, what the upstream had decided before, and what it decided meanwhile."""

    outcomes: list[Outcome]
    past: list[Decision]
    decisions: list[Decision]


class Figures(NamedTuple):
    """The figures of a phase.

    possible: answers that an omniscient scheduler would have got. refused: 429s drawn. in_flight: how many requests
    were in flight at a project, for a model, when a limit of theirs was met for the first time; of all limits together.
    avoidable: errors for which there was room within the client's patience, and nobody took it. served_otherwise:
    errors of requests that the omniscient scheduler serves, in place of others that it does not. waits: seconds, of the
    answers that waited for a key, in order.
    """

    requests: int
    possible: int
    answered: int
    refused: int
    in_flight: int
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
    outcomes = sorted(phase.outcomes, key=_wish)
    is_served = [moment < inf for moment in serve(map(_wish, outcomes), phase.past)]
    return Figures(
        requests=len(phase.outcomes),
        possible=sum(is_served),
        answered=len(phase.outcomes) - len(failed),
        refused=len(refused),
        in_flight=_count_in_flight(phase),
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


def _wish(outcome: Outcome) -> ClaimRequest:
    return ClaimRequest(outcome.moment, outcome.model, outcome.tokens)


def _count_in_flight(phase: Phase) -> int:
    """Return how many requests were in flight when limits were met that no 429 had named before.

    In flight is what the upstream decided on within the time that its answers take to begin, before or after.
    """
    named = {name for decision in phase.past for name in _windows(decision)}
    in_flight: set[Decision] = set()
    for met in phase.decisions:
        if not _windows(met) - named:
            continue
        named |= _windows(met)
        in_flight.update(
            decision
            for decision in phase.decisions
            if (decision.project, decision.model) == (met.project, met.model)
            and abs(decision.moment - met.moment) <= FIRST_BYTE_SECONDS + _BOOKING_SECONDS
        )
    return len(in_flight)


def _windows(decision: Decision) -> set[tuple[str, str, str]]:
    return {(decision.project, decision.model, window) for window in decision.violated}


def _waited_seconds(outcome: Outcome) -> float:
    return float(outcome.headers.get("x-waited-seconds", 0))

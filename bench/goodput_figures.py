"""The figures of the simulation."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from bench.goodput_load import Outcome
from bench.goodput_possible import ClaimRequest, serve
from tests.fake_gemini import Decision

# A shorter wait is only the time of a transaction.
_SHORTEST_WAIT_SECONDS = 0.1
# How long every answer of the upstream takes to begin, and how long it takes to book one.
FIRST_BYTE_SECONDS, _BOOKING_SECONDS = 0.3, 0.1


class Phase(NamedTuple):
    """What the clients got, and the upstream's decisions before and during the phase."""

    outcomes: list[Outcome]
    past: list[Decision]
    decisions: list[Decision]


class Figures(NamedTuple):
    """The figures of a phase."""

    requests: int
    # Answers that an omniscient scheduler would have got.
    possible: int
    answered: int
    # 429s from the upstream.
    refused: int
    # Requests in flight to a project and model when one of its limits was first reached; the sum over all limits.
    in_flight: int
    # By status.
    errors: Counter[str]
    # Errors of requests that would have fit in while their client waited.
    avoidable: int
    # Errors of requests that the omniscient scheduler serves instead of others.
    served_otherwise: int
    # How long answers waited for a key, in seconds, in ascending order.
    waits: list[float]

    @property
    def share(self) -> float:
        return self.answered / self.possible


def figures_of(phase: Phase) -> Figures:
    """Return the figures of a phase."""
    failed = [outcome for outcome in phase.outcomes if not outcome.is_answered]
    refused = [decision for decision in phase.decisions if decision.violated]
    outcomes = sorted(phase.outcomes, key=_claim_request)
    is_served = [moment < inf for moment in serve(map(_claim_request, outcomes), phase.past)]
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
    """Return how many of these would still have fit in, beside all requests that were accepted."""
    return sum(moment < inf for moment in serve(sorted(map(_claim_request, failed)), decisions))


def _claim_request(outcome: Outcome) -> ClaimRequest:
    return ClaimRequest(outcome.moment, outcome.model, outcome.tokens)


def _count_in_flight(phase: Phase) -> int:
    """Return how many requests were in flight when a limit was reached that no 429 had reported before.

    A request counts as in flight if the upstream decided on it within one answer time, before or after.
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

"""The waiting lines of requests: who is served when, and in which order."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.waiting_line import WaitingLines

LATE = 1000.0
HEAD_START = 0.06  # of lines in other processes whose first has waited longer


@dataclass(frozen=True)
class Guest:
    """A waiting request."""

    number: int
    gives_up_at: float = LATE


Room = WaitingLines[Guest]


def guests(count: int, first: int = 0) -> list[Guest]:
    return [Guest(number) for number in range(first, first + count)]


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_room_is_empty_at_first(room: Room) -> None:
    assert len(room) == 0
    assert room.opens_at("flash") is None
    assert room.seconds_to_next(5.0) is None
    assert room.take_due(LATE) == room.take_all() == []


def test_who_comes_later_stands_behind(room: Room) -> None:
    first, second, third, fourth = guests(4)
    room.wait("flash", [first, second], opens_at=0.25, now=0.0)
    room.join("flash", third)
    room.join("flash", fourth)

    assert len(room) == 4
    assert room.take_due(0.25 + HEAD_START) == [first, second, third, fourth]
    assert len(room) == 0
    assert room.opens_at("flash") is None


def test_nobody_is_looked_at_before_the_line_opens(room: Room) -> None:
    room.wait("flash", guests(2), opens_at=10.25, now=10.0)

    assert room.opens_at("flash") == 10.25
    assert room.seconds_to_next(10.0) == pytest.approx(0.25 + HEAD_START)
    assert room.take_due(10.25) == []
    assert len(room) == 2
    assert room.seconds_to_next(11.0) == 0.0


def test_whose_first_has_waited_longer_looks_sooner(room: Room) -> None:
    """Several processes have lines for the same quotas. The older request is first, whichever process it is in."""
    other = Room()
    room.wait("flash", [Guest(1, gives_up_at=19.0)], opens_at=0.1, now=0.0)
    other.wait("flash", [Guest(2, gives_up_at=2.0)], opens_at=0.1, now=0.0)

    assert 0.1 < (other.seconds_to_next(0.0) or 0) < (room.seconds_to_next(0.0) or 0)


def test_a_line_that_opens_late_is_looked_at_twice_a_second(room: Room) -> None:
    """Changes by another process do not notify this one."""
    room.wait("flash", guests(2), opens_at=60.0, now=0.0)

    assert room.seconds_to_next(0.0) == 0.5
    assert room.take_due(0.4) == []
    assert room.take_due(0.5) == guests(2)


def test_64_at_once_are_looked_at(room: Room) -> None:
    room.wait("flash", guests(150), opens_at=0.1, now=0.0)

    taken = [room.take_due(0.2) for _ in range(4)]

    assert taken == [guests(64), guests(64, first=64), guests(22, first=128), []]


def test_a_line_that_is_left_over_is_looked_at_again_at_once(room: Room) -> None:
    room.wait("flash", guests(65), opens_at=0.1, now=0.0)
    room.take_due(0.2)

    assert len(room) == 1
    assert room.seconds_to_next(0.2) == 0.0


def test_who_can_wait_no_longer_leaves_on_time_from_wherever_he_stands(room: Room) -> None:
    impatient = Guest(999, gives_up_at=0.3)
    room.wait("flash", [*guests(100), impatient, *guests(20, first=100)], opens_at=60.0, now=0.0)

    assert room.seconds_to_next(0.0) == pytest.approx(0.3)
    assert room.take_due(0.29) == []
    assert room.take_due(0.3) == [*guests(64), impatient]
    assert room.take_due(0.3) == guests(56, first=64)


def test_who_was_not_served_stands_in_front_again_in_order(room: Room) -> None:
    room.wait("flash", guests(70), opens_at=0.1, now=0.0)
    _, *not_served = room.take_due(0.2)

    room.wait("flash", not_served, opens_at=0.4, now=0.2)

    assert room.opens_at("flash") == 0.4
    assert room.take_due(0.3) == []
    assert room.take_due(0.5) == guests(64, first=1)
    assert room.take_due(0.5) == guests(5, first=65)


def test_a_line_is_looked_at_soon_when_something_happened(room: Room) -> None:
    room.wait("flash", guests(2), opens_at=60.0, now=0.0)
    room.wait("pro", guests(2, first=5), opens_at=60.0, now=0.0)

    room.check_soon("flash")
    room.check_soon("nobody waits for this")

    assert room.seconds_to_next(0.0) == 0.0
    assert room.take_due(0.0) == guests(2)
    assert room.seconds_to_next(0.0) == 0.5
    assert len(room) == 2


def test_each_model_has_a_line_of_its_own(room: Room) -> None:
    room.wait("flash", guests(2), opens_at=0.3, now=0.0)
    room.wait("pro", guests(2, first=5), opens_at=0.1, now=0.0)

    assert room.seconds_to_next(0.0) == pytest.approx(0.1 + HEAD_START)
    assert room.take_due(0.2) == guests(2, first=5)
    assert room.take_due(0.4) == guests(2)


def test_all_are_taken_when_the_service_stops(room: Room) -> None:
    room.wait("flash", guests(100), opens_at=60.0, now=0.0)
    room.wait("pro", guests(3, first=100), opens_at=60.0, now=0.0)

    assert room.take_all() == guests(103)
    assert len(room) == 0
    assert room.seconds_to_next(0.0) is None


@given(rounds=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 70)), min_size=1, max_size=30))
def test_whoever_comes_and_however_few_are_served_the_order_is_kept_and_nobody_lost(
    rounds: list[tuple[int, int]],
) -> None:
    room, now, came = Room(), 0.0, 0
    served: list[int] = []

    for newcomers, places in rounds:
        now += 1.0
        late = guests(newcomers, first=came)
        came += newcomers
        if room.opens_at("flash") is None and late:
            room.wait("flash", late, opens_at=now, now=now)
        else:
            for guest in late:
                room.join("flash", guest)
        due = room.take_due(now)
        served += [guest.number for guest in due[:places]]
        if left := due[places:]:
            room.wait("flash", left, opens_at=now + 1.0, now=now)

    waiting = [guest.number for guest in room.take_all()]
    assert served + waiting == list(range(came))

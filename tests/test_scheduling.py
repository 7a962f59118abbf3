"""The scheduler, compared with a simple model of Google's windows, whatever happens in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.gemini.refusals import Limits, Refusal, Window
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, PoolExhausted
from proxy.models import ApiKey, DailyUsage, ExhaustionEvent, GeminiModel, Project, Quota, Use
from proxy.models.quotas import SET_NAMES
from proxy.pool.adding import add_keys
from tests.conftest import FLASH, Clocks, claim_request_for, fake_secret, stopped_clocks

PACIFIC = ZoneInfo("America/Los_Angeles")
# Around noon, and an hour before midnight of ordinary days and of those on which the clocks change.
BEGINNINGS = [
    datetime(2026, 11, 24, 12, tzinfo=PACIFIC),
    *(datetime(year, month, day, 23, tzinfo=PACIFIC) for year, month, day in [(2026, 10, 31), (2026, 11, 1)]),
    *(datetime(year, month, day, 23, tzinfo=PACIFIC) for year, month, day in [(2027, 3, 13), (2027, 3, 14)]),
]
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
SLACK = 0.3  # seconds that our minute is longer than Google's


@dataclass
class GoogleProject:
    """A project as Google sees it: accepted requests in a sliding minute and on a Pacific day."""

    limits: Limits
    reported: dict[Window, int]  # the limits that we know, and how many requests had been sent before each was reported
    accepted: list[tuple[float, int, object]] = field(default_factory=list)
    cooldown_until: float = 0.0
    day_ends: datetime = LONG_AGO  # when the day does that was spent, also when the clock is set back
    unbooked: set[int] = field(default_factory=set)  # those accepted that no answer was booked for
    doubtful: set[int] = field(default_factory=set)  # of these, those of a day that may have come again

    def violations(self, clocks: Clocks, tokens: int, slack: float = 0.0) -> dict[Window, float]:
        """Return which limits one more request would exceed, and in how many seconds it would fit."""
        now, wall = clocks.elapsed_ns / 1e9, datetime.now(UTC).astimezone(PACIFIC)
        minute = [(moment, spent) for moment, spent, _ in self.accepted if moment + 60 + slack > now]
        found = {}
        if (most := self.limits.requests_per_minute) is not None and len(minute) >= most:
            found[Window.MINUTE] = minute[len(minute) - most][0] + 60 - now
        if (most := self.limits.input_tokens_per_minute) is not None:
            spent = sum(spent for _, spent in minute)
            if minute and spent + tokens > most:
                found[Window.TOKENS] = minute[-1][0] + 60 - now
        if (most := self.limits.requests_per_day) is not None:
            sure = (day for number, (_, _, day) in enumerate(self.accepted) if slack or number not in self.doubtful)
            today = sum(day == wall.date() for day in sure)
            if today >= most:
                found[Window.DAY] = (_next_midnight(wall) - wall.astimezone(UTC)).total_seconds()
        return found

    def accept(self, clocks: Clocks, tokens: int) -> None:
        wall = datetime.now(UTC).astimezone(PACIFIC)
        self.accepted.append((clocks.elapsed_ns / 1e9, tokens, wall.date()))
        if Window.DAY in self.violations(clocks, tokens, SLACK):
            self.day_ends = max(self.day_ends, _next_midnight(wall))


def _next_midnight(wall: datetime) -> datetime:
    return datetime.combine(wall.date() + timedelta(days=1), datetime.min.time(), PACIFIC).astimezone(UTC)


class InFlight(NamedTuple):
    """A request that Google has decided on, and whose answer has not reached us. number: of those sent, from 0."""

    ledger: Ledger
    claim: Claim
    project: GoogleProject
    number: int
    violations: dict[Window, float]


class Simulation:
    """A pool of projects with two keys each, two processes, and Google."""

    def __init__(self, clocks: Clocks, projects: list[tuple[Limits, bool]]) -> None:
        self.clocks = clocks
        self.ledgers = [self._ledger(), self._ledger()]
        self.google: dict[str, GoogleProject] = {}
        self.sent = 0
        self.in_flight: list[InFlight] = []
        GeminiModel.objects.begin(FLASH)
        for number, (limits, is_known) in enumerate(projects):
            name = f"project-{number}"
            secrets = [fake_secret(f"{name}-{letter}") for letter in "ab"]
            add_keys(secrets, timezone.now(), project=name)
            self.google[name] = GoogleProject(limits, dict.fromkeys(Window, 0) if is_known else {})
            if is_known:
                quota = Quota.objects.filter(project__name=name, model_name=FLASH)
                quota.set_limits(timezone.now(), **dict(zip(SET_NAMES, limits, strict=True)))

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()

    def restart(self, process: int) -> None:
        self.arrive()
        self.ledgers[process].close()
        self.ledgers[process] = self._ledger()

    def go_on(self, seconds: float) -> None:
        self.clocks.go_on(seconds)

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock; a rest that was to end soon may then last as long as it did at first, and no longer.

        What was never booked of a day is forgotten when that day is over, and may or may not count if it comes again.
        """
        self.arrive()
        day = datetime.now(UTC).astimezone(PACIFIC).date()
        self.clocks.set_wall(seconds)
        for project in self.google.values():
            if datetime.now(UTC).astimezone(PACIFIC).date() < day:
                project.doubtful |= project.unbooked
            if project.cooldown_until and seconds < 0:
                project.cooldown_until = self.clocks.elapsed_ns / 1e9 + 60

    def ask(self, process: int, tokens: int, fate: str) -> None:
        ledger = self.ledgers[process]
        try:
            claim, _ = ledger.claim(claim_request_for(tokens=tokens))
        except PoolExhausted:
            self.check_that_none_may_be_used(tokens)
            return
        project = self.google[ApiKey.objects.select_related("project").get(id=claim.key_id).project.name]
        if fate == "never sent":
            ledger.give_back(claim)
            ledger.close()  # the other process may ask before this is written, which is no fault
            return
        request = InFlight(ledger, claim, project, self.sent, project.violations(self.clocks, tokens))
        self.sent += 1
        for window in request.violations:
            assert window not in project.reported, f"went past a known limit: {window}"
        if not request.violations:
            project.accept(self.clocks, tokens)
            if fate == "lost":  # the process is killed, or the answer never comes: Google has counted it
                project.unbooked.add(len(project.accepted) - 1)
                return
        self.in_flight.append(request)
        if fate != "in flight":
            self.arrive(-1)

    def arrive(self, first: int = 0) -> None:
        """Let the answers to requests in flight arrive, starting with this one."""
        for request in self.in_flight[first:]:
            if request.violations:
                self.refuse(request)
            else:
                request.ledger.book_answer(request.claim, 200)
            request.ledger.close()
        del self.in_flight[first:]

    def refuse(self, request: InFlight) -> None:
        project, violations = request.project, request.violations
        window = next(window for window in (Window.DAY, Window.MINUTE, Window.TOKENS) if window in violations)
        windows = zip(Limits._fields, (Window.MINUTE, Window.TOKENS, Window.DAY), project.limits, strict=True)
        limits = Limits(**{name: limit for name, its_window, limit in windows if its_window in violations})
        request.ledger.book_refusal(request.claim, Refusal(window, violations[window], None, limits))
        for violated in violations:
            assert request.number < project.reported.setdefault(violated, self.sent), f"refused again: {violated}"
        if window is Window.DAY:
            project.day_ends = max(project.day_ends, datetime.now(UTC) + timedelta(seconds=violations[window]))
        else:
            cooldown_until = self.clocks.elapsed_ns / 1e9 + violations[window]
            project.cooldown_until = max(project.cooldown_until, cooldown_until)

    def check_that_none_may_be_used(self, tokens: int) -> None:
        now = self.clocks.elapsed_ns / 1e9
        for name, project in self.google.items():
            if project.cooldown_until <= now and project.day_ends <= datetime.now(UTC):
                known = project.violations(self.clocks, tokens, SLACK).keys() & project.reported
                assert known, f"{name} is not asked, although no limit of it that is known is spent"

    def _ledger(self) -> Ledger:
        return Ledger(PACIFIC)


@contextmanager
def simulation(beginning: datetime, projects: list[tuple[Limits, bool]]) -> Iterator[Simulation]:
    for model in (Use, Quota, GeminiModel, ExhaustionEvent, DailyUsage, ApiKey, Project):
        model._default_manager.all().delete()
    with stopped_clocks(beginning) as clocks:
        simulated = Simulation(clocks, projects)
        try:
            yield simulated
        finally:
            simulated.close()


LIMITS = st.builds(
    Limits,
    requests_per_minute=st.none() | st.integers(1, 5),
    input_tokens_per_minute=st.none() | st.integers(50, 300),
    requests_per_day=st.none() | st.integers(1, 12),
).filter(any)
PROJECTS = st.lists(st.tuples(LIMITS, st.booleans()), min_size=1, max_size=3)
PROCESSES = st.integers(0, 1)
FATES = st.sampled_from(["answered"] * 6 + ["in flight"] * 4 + ["never sent", "lost"])
ASKS = st.tuples(st.just("ask"), PROCESSES, st.integers(1, 120), FATES)
TIMES = st.sampled_from([0.05, 0.1, 0.4, 1.0, 1.5, 7.0, 19.9, 30.0, 59.6, 60.0, 60.35, 75.0, 3_600.0])
STEPS = st.sampled_from([-90_000.0, -7_200.0, -61.0, -3.0, 3.0, 61.0, 7_200.0])
EVENTS = st.lists(
    st.one_of(
        ASKS,
        ASKS,
        ASKS,
        st.tuples(st.just("go_on"), TIMES),
        st.tuples(st.just("arrive"), st.integers(0, 4)),
        st.tuples(st.just("restart"), PROCESSES),
        st.tuples(st.just("set_wall"), STEPS),
    ),
    min_size=10,
    max_size=60,
)
OVER_MIDNIGHT = [("ask", 0, 1, "answered"), ("set_wall", -7_200.0), ("ask", 0, 1, "answered")]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(beginning=st.sampled_from(BEGINNINGS), projects=PROJECTS, events=EVENTS)
@example(  # a spent day that comes back, since the clock is set back over midnight
    beginning=BEGINNINGS[-1],
    projects=[(Limits(requests_per_day=4), False)],
    events=[*[("ask", 0, 1, "answered")] * 5, ("go_on", 3_600.0), *OVER_MIDNIGHT],
)
def test_no_known_limit_is_passed_and_no_unknown_one_makes_a_request_wait(
    transactional_db: None, beginning: datetime, projects: list[tuple[Limits, bool]], events: list[tuple[Any, ...]]
) -> None:
    with simulation(beginning, projects) as simulated:
        for name, *arguments in events:
            getattr(simulated, name)(*arguments)

"""The rotation of a model within one transaction of the ledger: loaded, claimed from, and written back.

The SQL is written by hand, for SQLite and PostgreSQL alike: the ORM took a third of a request's time.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from django.db.backends.utils import CursorWrapper

from proxy.gemini.quota_day import next_reset, quota_day
from proxy.ledger.clock import SECOND, DatabaseClock
from proxy.ledger.minute_window import TENTH, adapt, add, expire, opening
from proxy.ledger.quota_state import COLUMNS, Key, QuotaState
from proxy.models import COMMON_ROTATION, NO_MODEL, ApiKey, DailyUsage, GeminiModel, Quota

_DUE_AT_ONCE = 100
_A_MOMENT = SECOND // 20
_A_MINUTE = 60 * SECOND

_QUOTA, _KEY, _USAGE = Quota._meta.db_table, ApiKey._meta.db_table, DailyUsage._meta.db_table
_ROTATION = GeminiModel._meta.db_table
_FIND = (
    f"SELECT is_known, counts_as, overloads, backs_off_until, EXISTS (SELECT 1 FROM {_QUOTA} quota "
    f"WHERE quota.model_name = CASE counts_as WHEN '' THEN {_ROTATION}.model_name ELSE counts_as END "
    f"AND NOT is_open AND opens_at <= %s) FROM {_ROTATION} WHERE model_name = %s"
)
_BACK_OFF = f"UPDATE {_ROTATION} SET backs_off_until = %s WHERE model_name = %s"
_DUE = (
    f"SELECT {COLUMNS} FROM {_QUOTA} WHERE model_name = %s AND NOT is_open AND opens_at <= %s "
    f"ORDER BY opens_at LIMIT {_DUE_AT_ONCE}"
)
_JUDGE = (
    f"UPDATE {_QUOTA} SET is_open = %s, opens_at = %s, day = %s, day_requests = %s, cooldown_until = NULL WHERE id = %s"
)
# LIMIT takes its parameter from a subquery: SQLite prepares a statement again whenever a bound LIMIT changes, which
# costs three times as much as running it.
_OPEN = (
    f"SELECT {COLUMNS} FROM {_QUOTA} WHERE model_name = %s AND is_open ORDER BY room DESC, last_used "
    "LIMIT (SELECT %s) OFFSET (SELECT %s)"
)
_OPEN_OF_PROJECT = f"SELECT {COLUMNS} FROM {_QUOTA} WHERE model_name = %s AND is_open AND project_id = %s"
_KEYS = (
    f"SELECT project_id, id, name, secret FROM {_KEY} WHERE project_id IN (%s) "
    "AND is_enabled AND fault = '' AND deleted_at IS NULL ORDER BY id"
)
_ANSWERS_OF_DAY = (
    f"SELECT COALESCE(SUM(answers), 0) FROM {_USAGE} usage JOIN {_KEY} key ON key.id = usage.key_id "
    "WHERE key.project_id = %s AND usage.day = %s AND (usage.model_name = %s "
    f"OR usage.model_name IN (SELECT model_name FROM {_ROTATION} WHERE counts_as = %s))"
)
_TAKE = (
    f"UPDATE {_QUOTA} SET last_used = %s, minute_requests = %s, minute_tokens = %s, day = %s, day_requests = %s "
    "WHERE id = %s"
)
_TAKE_KEY = f"UPDATE {_KEY} SET last_used = %s WHERE id = %s"
_CLOSE = f"UPDATE {_QUOTA} SET is_open = FALSE, opens_at = %s WHERE id = %s"


@dataclass(slots=True)
class Progress:
    """What one transaction of this process leaves to the next."""

    # The `last_used` of the latest claim.
    turn: int = 0
    # The tenth of a second up to which windows have expired.
    expired: int = 0
    # For each key, when its `last_used` was last written, by the clock of `Use`.
    noted: dict[int, int] = field(default_factory=dict)


class LoadedRotation:
    """The rotation of a model, or of the model that it counts as; the common one for models beyond the hundredth."""

    def __init__(
        self, cursor: CursorWrapper, model_name: str, zone: tzinfo, clock: DatabaseClock, progress: Progress
    ) -> None:
        self.asked_for = self.name = model_name
        self.moment = clock.moment()
        # `moment` in nanoseconds by the clock of `Use`.
        self.now, self._monotonic = clock.now_ns(), time.monotonic()
        # This is the first request for the model.
        self.is_new = False
        # As in `GeminiModel`.
        self.overloads = self.backs_off_until = 0
        # Every open quota has been loaded.
        self.are_all_seen = False
        self._cursor = cursor
        self._zone = zone
        self._progress = progress
        self._day = quota_day(self.moment, zone).isoformat()
        self._seen = 0
        self._taken: dict[int, QuotaState] = {}
        self._spent: dict[int, QuotaState] = {}
        self._keys_taken: set[int] = set()
        # Requests and tokens, by quota and tenth.
        self._uses: dict[tuple[int, int], list[int]] = {}
        are_some_due = self._find()
        # Requests are counted by the minute.
        self.has_windows = self.name not in (COMMON_ROTATION, NO_MODEL)
        self._expire_uses()
        if are_some_due:
            self._open_what_is_due()

    def by_our_clock(self, monotonic: float) -> int:
        """Convert a time of `time.monotonic()` to the clock of `Use`."""
        return self.now + int((monotonic - self._monotonic) * SECOND)

    def moment_of(self, nanoseconds: int) -> datetime:
        """Convert a time of the clock of `Use` to a moment."""
        return self.moment + timedelta(microseconds=(nanoseconds - self.now) // 1000)

    def more(self, count: int) -> list[QuotaState]:
        """Return up to `count` more open quotas with their usable keys, most room first."""
        self._cursor.execute(_OPEN, [self._day, self.name, count, self._seen])
        by_project = {quota.project_id: quota for quota in map(QuotaState.from_row, self._cursor.fetchall())}
        self._seen += len(by_project)
        self.are_all_seen = len(by_project) < count
        if by_project:
            self._cursor.execute(_KEYS % ", ".join(["%s"] * len(by_project)), list(by_project))
            for project_id, *key in self._cursor.fetchall():
                by_project[project_id].keys.append(Key(*key))
        return list(by_project.values())

    def of_project(self, project_id: int) -> QuotaState | None:
        """Return the project's quota with its usable keys; None if it is closed."""
        self._cursor.execute(_OPEN_OF_PROJECT, [self._day, self.name, project_id])
        if (row := self._cursor.fetchone()) is None:
            return None
        quota = QuotaState.from_row(row)
        self._cursor.execute(_KEYS % "%s", [project_id])
        quota.keys = [Key(*key) for _, *key in self._cursor.fetchall()]
        return quota

    def opening_of_project(self, project_id: int) -> int | None:
        """Return when a project's closed quota opens; None when it does not by itself."""
        closed = Quota.objects.filter(model_name=self.name, project=project_id, is_open=False)
        opens_at = closed.values_list("opens_at", flat=True).first()
        return self.now + (opens_at - self.moment) // timedelta(microseconds=1) * 1000 if opens_at else None

    def count_day(self, quota: QuotaState) -> None:
        """Start the day of a quota that was last used on another day, with what its keys have done or was imported."""
        if not quota.is_of_today:
            self._cursor.execute(_ANSWERS_OF_DAY, [quota.project_id, self._day, self.name, self.name])
            quota.is_of_today, quota.day_requests = True, int(self._cursor.fetchone()[0])

    def opening_of(self, quota: QuotaState, tokens: int = 0) -> int | None:
        """Return when a spent quota has room again for a request of this many tokens; None if it never has."""
        if quota.requests_per_day == 0:
            return None
        if quota.is_day_spent:
            reset = next_reset(self.moment, self._zone)
            return self.now + (reset - self.moment) // timedelta(microseconds=1) * 1000
        self._write_uses()
        opens = opening(self._cursor, quota.id, quota.requests_per_minute, quota.input_tokens_per_minute, tokens)
        return opens if opens is None else max(opens, self.now + _A_MOMENT)

    def take(self, quota: QuotaState, key: Key, tokens: int, tenths_later: int = 0) -> int:
        """Count a new request. Return the tenth of a second in which it is counted; 0 if not by the minute."""
        self._progress.turn = max(self._progress.turn + 1, self.now)
        quota.last_used = self._progress.turn
        quota.day_requests += 1
        self._taken[quota.id] = quota
        if abs(self.now - self._progress.noted.get(key.id, 0)) > _A_MINUTE:
            self._progress.noted[key.id] = self.now
            self._keys_taken.add(key.id)
        if not self.has_windows:
            return 0
        tenth = self.now // TENTH + tenths_later
        quota.spend(tokens)
        use = self._uses.setdefault((quota.id, tenth), [0, 0])
        use[0] += 1
        use[1] += tokens
        return tenth

    def close(self, quota: QuotaState) -> None:
        """Close a spent quota when the rotation is written."""
        self._spent[quota.id] = quota

    def back_off(self, model_name: str, until: int) -> None:
        """Send no request for an overloaded model before `until`."""
        self.backs_off_until = until
        self._cursor.execute(_BACK_OFF, [until, model_name])

    def write(self) -> None:
        """Write the claims, and close the quotas that are spent."""
        self._write_uses()
        self._cursor.executemany(
            _TAKE,
            [
                (q.last_used, q.minute_requests, q.minute_tokens, self._day, q.day_requests, q.id)
                for q in self._taken.values()
            ],
        )
        for key_id in self._keys_taken:
            self._cursor.execute(_TAKE_KEY, [adapt(self._cursor, self.moment), key_id])
        for quota in self._spent.values():
            self._cursor.execute(_CLOSE, [self._opens_at(quota), quota.id])

    def first_opening(self) -> datetime | None:
        """Return when the next closed quota is due; None when none opens by itself."""
        closed = Quota.objects.filter(model_name=self.name, is_open=False, opens_at__isnull=False)
        return closed.order_by("opens_at").values_list("opens_at", flat=True).first()

    def _find(self) -> bool:
        """Find the rotation; return whether some of its closed quotas may be due."""
        model_name, are_some_due = self.name, True
        self._cursor.execute(_FIND, [adapt(self._cursor, self.moment), model_name])
        if row := self._cursor.fetchone():
            is_known, counts_as, self.overloads, self.backs_off_until, are_some_due = row
            self.is_new = not is_known
            self.name = counts_as or model_name
        elif model_name == NO_MODEL:
            GeminiModel.objects.begin(NO_MODEL)
        elif GeminiModel.objects.begin_if_room(model_name):
            self.is_new = True
        else:
            self.name = COMMON_ROTATION
        return are_some_due

    def _expire_uses(self) -> None:
        tenth = self.now // TENTH
        if tenth != self._progress.expired:
            expire(self._cursor, tenth)
            self._progress.expired = tenth

    def _open_what_is_due(self) -> None:
        """Open the closed quotas that are due and have room; set a new time for the others."""
        has_opened, rows = False, [()] * _DUE_AT_ONCE
        while len(rows) == _DUE_AT_ONCE and not has_opened:
            self._cursor.execute(_DUE, [self._day, self.name, adapt(self._cursor, self.moment)])
            rows = self._cursor.fetchall()
            for row in rows:
                quota = QuotaState.from_row(row)
                self.count_day(quota)
                is_spent = quota.is_day_spent or quota.is_minute_spent
                opens_at = self._opens_at(quota) if is_spent else None
                self._cursor.execute(_JUDGE, [not is_spent, opens_at, self._day, quota.day_requests, quota.id])
                has_opened |= not is_spent

    def _opens_at(self, quota: QuotaState) -> str | datetime | None:
        opens = self.opening_of(quota)
        return None if opens is None else adapt(self._cursor, self.moment_of(opens))

    def _write_uses(self) -> None:
        if self._uses:
            add(self._cursor, [(*place, *numbers) for place, numbers in self._uses.items()])
            self._uses = {}

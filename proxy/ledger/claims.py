"""A request for a key, the claim that grants one, and the reasons why none is granted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from proxy.models import NO_MODEL, Owner


class PoolExhausted(Exception):
    """No key is left for this model."""

    # The request waited for a key and got none.
    has_waited = False

    def __init__(
        self, model_name: str, opens_at: datetime | None, *, has_keys: bool = True, are_tried: bool = False
    ) -> None:
        super().__init__(f"No key is left for {model_name}.")
        self.model_name = model_name
        # When the next key is available; None if one must be revived manually.
        self.opens_at = opens_at
        # The pool has a usable key.
        self.has_keys = has_keys
        # Keys are available, but this request has tried them all.
        self.are_tried = are_tried


class ProjectExhausted(PoolExhausted):
    """No key is left in the project that owns a resource which the request names."""

    resource = ""


class Overloaded(PoolExhausted):
    """The API is overloaded for this model, and the whole pool backs off for a moment."""


class UnknownResource(Exception):
    """Nobody has looked up yet which project owns a resource that the request names."""

    def __init__(self, name: str) -> None:
        super().__init__(f"It is not known which project owns {name}.")
        self.name = name


class UnknownUpload(Exception):
    """The request has no token, and does not continue an upload that began here."""


class SeveralProjects(Exception):
    """The request names resources of several projects, which no key can use together."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"These belong to different Google projects: {', '.join(names)}.")
        self.names = names


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a key is needed for, and how long the request can wait for one."""

    model_name: str
    # Estimated input tokens; None when the call spends no quota.
    tokens: int | None
    # Ids of keys that must not be used again.
    tried: frozenset[int] = frozenset()
    # When it stops waiting for a rate-limited key, by `time.monotonic()`.
    gives_up_at: float = 0.0
    # When it stops waiting for an overloaded API, by `time.monotonic()`.
    deadline: float = 0.0
    # Resources that it names. Only a key of their project will do.
    resources: frozenset[str] = frozenset()
    # It may only continue an upload that is known.
    has_no_token: bool = False
    # The client that has something created, which prefers the project of its last creation; "" if nothing is created.
    creator: str = ""
    # The kind of resources that it looks for, such as "files", or "". Projects that own some come first.
    looks_for: str = ""
    # Projects that must not be used again.
    tried_projects: frozenset[int] = frozenset()
    # The owner of `resources`, and the project that is preferred, once the ledger has looked them up.
    owner: Owner | None = None
    home: int | None = None

    @property
    def takes_any_key(self) -> bool:
        return not (self.needs_lookup or self.tried_projects or self.home)

    @property
    def needs_lookup(self) -> bool:
        """Tell whether the ledger must look up an owner or a home."""
        return bool(self.resources or self.creator or self.looks_for)

    @property
    def needs_project(self) -> bool:
        """Tell whether only the keys of one project will do."""
        return bool(self.resources) or self.owner is not None

    @property
    def line(self) -> str:
        """The line in which it waits for a key. Those that need a key of one project hold nobody else up."""
        return self.rotation_name if self.owner is None else f"{self.rotation_name} in {self.owner.project_id}"

    @property
    def rotation_name(self) -> str:
        """The rotation that the key comes from. All calls that spend no quota share the one of NO_MODEL."""
        return NO_MODEL if self.tokens is None else self.model_name


class Learned(NamedTuple):
    """What an answer shows about resources of the key's project."""

    # When each resource that it names can be forgotten.
    expiries: Mapping[str, datetime] = MappingProxyType({})
    # The client that has them created, which prefers this project for its next creation; "" if nothing was created.
    creator: str = ""
    # A resource that was deleted; "" if none.
    deleted: str = ""


NOTHING_LEARNED = Learned()


@dataclass(frozen=True, slots=True)
class Claim:
    """A key reserved for one attempt, and what the answer to that attempt can show."""

    key_id: int
    # The key's name in logs.
    label: str
    secret: str = field(repr=False)
    model_name: str
    # The rotation that the key comes from; NO_MODEL when the attempt spends no quota.
    rotation_name: str = ""
    quota_id: int = 0
    project_id: int = 0
    # The model has never been answered.
    is_new_model: bool = False
    # The tenth of a second of its row in `Use`; 0 if it has none.
    tenth: int = 0
    # Estimated input tokens.
    tokens: int = 0
    # The token count of the answer replaces the estimate.
    corrects_tokens: bool = False
    # A limit of input tokens is known, so that other processes must hear of the true count soon.
    has_token_limit: bool = False
    # How many requests the quota has had in this minute, including this one.
    in_minute: int = 0
    # The limit is unknown, and the quota has never accepted this many requests in a minute.
    is_unproven: bool = False
    # Learned limits that are wrong if this attempt is accepted, as names of `Quota` fields.
    disproves: tuple[str, ...] = ()
    # The attempt uses up the day's limit.
    is_last_of_day: bool = False
    # How many 429s in a row the project got for this model before this attempt.
    refusals_in_a_row: int = 0
    # How many waves of overload in a row the model had before this attempt.
    overloads: int = 0

    @property
    def spends_quota(self) -> bool:
        return self.rotation_name != NO_MODEL

    @property
    def counted_name(self) -> str:
        """The model under which the answer is counted; NO_MODEL when no quota is spent."""
        return self.model_name if self.spends_quota else NO_MODEL

    @property
    def says_nothing_new(self) -> bool:
        """Tell whether a successful answer has to be counted, and proves room at most."""
        is_usual = not (self.is_new_model or self.disproves or self.is_last_of_day)
        return is_usual and not (self.refusals_in_a_row or self.overloads)

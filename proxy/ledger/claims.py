"""What a claim is wanted for, what it is when it is granted, and why it is not."""

from dataclasses import dataclass, field
from datetime import datetime

from proxy.models import NO_MODEL


class PoolExhausted(Exception):
    """No key is left for this model. opens_at: when the first comes back; None when none does by itself.

    are_tried: those that are open were tried by this very request. has_waited: for a key, in vain.
    """

    has_waited = False

    def __init__(
        self, model_name: str, opens_at: datetime | None, *, has_keys: bool = True, are_tried: bool = False
    ) -> None:
        super().__init__(f"No key is left for {model_name}.")
        self.model_name = model_name
        self.opens_at = opens_at
        self.has_keys = has_keys
        self.are_tried = are_tried


class Overloaded(PoolExhausted):
    """The API has too much to do for this model: the whole pool leaves it alone for a moment."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a claim is wanted for.

    tokens: of the input, estimated; None when the call spends no quota. tried: keys not to be taken again.
    gives_up_at: until when it can wait for a key; deadline: until when for an API that is overloaded; both by
    `time.monotonic()`.
    """

    model_name: str
    tokens: int | None
    tried: frozenset[int] = frozenset()
    gives_up_at: float = 0.0
    deadline: float = 0.0

    @property
    def rotation_name(self) -> str:
        """The rotation it takes its key from: calls that spend no quota have one together, that of no model."""
        return NO_MODEL if self.tokens is None else self.model_name


@dataclass(frozen=True, slots=True)
class Claim:
    """A key, handed out for one try, and what its answer can tell.

    label: how logs call it. rotation_name: whose key it is, NO_MODEL when no quota is spent. is_new_model: nothing was
    heard of it before. tenth: of its `Use`, 0 when it has none. tokens: of the input, as estimated; corrects_tokens:
    the answer's are to be written instead. in_minute: it is the quota's n-th request of this minute. is_unproven: the
    quota never accepted so many, and its limit is unknown. disproves: limits that Google told and that are wrong when
    it is accepted. is_last_of_day: it spends the day. refusals_in_a_row: of the project for this model, before;
    overloads: of the model.
    """

    key_id: int
    label: str
    secret: str = field(repr=False)
    model_name: str
    rotation_name: str = ""
    quota_id: int = 0
    is_new_model: bool = False
    tenth: int = 0
    tokens: int = 0
    corrects_tokens: bool = False
    in_minute: int = 0
    is_unproven: bool = False
    disproves: tuple[str, ...] = ()
    is_last_of_day: bool = False
    refusals_in_a_row: int = 0
    overloads: int = 0

    @property
    def spends_quota(self) -> bool:
        return self.rotation_name != NO_MODEL

    @property
    def counted_name(self) -> str:
        """The model under which its answer is counted: what spends no quota is not in the count of a model's day."""
        return self.model_name if self.spends_quota else NO_MODEL

    @property
    def says_nothing_new(self) -> bool:
        """Tell whether an answer teaches nothing: it only has to be counted."""
        is_usual = not (self.is_new_model or self.is_unproven or self.disproves or self.is_last_of_day)
        return is_usual and not (self.refusals_in_a_row or self.overloads)

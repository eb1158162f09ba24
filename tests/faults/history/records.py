"""What happened during a run: every call, every version, every fault. Times are in seconds.

All times are of one clock, `time.monotonic` of the process that runs the check.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["SERVED", "Call", "Damage", "Fault", "History", "Outage", "Release", "Span"]

SERVED = ""  # the selector of a call that selects nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time with a begin and an end."""

    began: float
    ended: float

    def overlaps(self, other: "Span", after: float = 0.0) -> bool:
        """Return True if both share a moment, or would if this one lasted `after` longer."""
        return self.began <= other.ended and other.began <= self.ended + after


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Span):
    """One call, and what came of it.

    Attributes:
        client: number of the client.
        replicas: those that it could go to.
        connection: the connection that carried it; "" where that is not known.
        selector: SERVED, an alias, or the number of a version.
        rows: number of the input, or those of a batch.
        code: name of gRPC's status code, "OK" for an answer.
        message: the error's text.
        version: number of the version that answered.
        digest: the digest that the answer names.
        probabilities: the answer, [classes], or of a batch [rows, classes].

    """

    client: int
    replicas: tuple[int, ...]
    connection: str
    selector: str
    rows: int | slice
    code: str = "OK"
    message: str = ""
    version: int = 0
    digest: str = ""
    probabilities: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A published version.

    Attributes:
        version: its number.
        digest: the digest of its weights.
        rejected: whether the gate rejected it.
        answers: what its weights give for each input, [rows, classes].
        promoted: when it was champion for sure; infinite for one that never was.

    """

    version: int
    digest: str
    rejected: bool
    answers: NDArray[np.float32]
    promoted: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Span):
    """A fault, from the first harm to the last trace of it.

    Attributes:
        kind: name of the kind.
        target: what it was done to, as text.

    """

    kind: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage(Span):
    """A time during which a replica may fail every call."""

    replica: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage(Span):
    """A time during which the files of a version were damaged, or may have been.

    Attributes:
        version: its number.
        unread: whether they were all the time, and nothing could read it before, so that nothing
            may answer with it.

    """

    version: int
    unread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A run as a whole.

    Attributes:
        calls: in the order in which each client made them.
        releases: by version.
        faults: all of them.
        outages: when replicas may fail calls.
        damages: when versions could not be loaded.
        store_faults: when the store could not be read.
        alias_faults: when the aliases were wrong or could not be read.
        healed: when the last fault was over and every replica was ready.
        last_good: the version that has to answer at the end.
        due_seconds: time that two polls of a replica take, with what they read.

    """

    calls: Sequence[Call]
    releases: Mapping[int, Release]
    healed: float
    last_good: int
    due_seconds: float
    faults: Sequence[Fault] = field(default=())
    outages: Sequence[Outage] = field(default=())
    damages: Sequence[Damage] = field(default=())
    store_faults: Sequence[Span] = field(default=())
    alias_faults: Sequence[Span] = field(default=())

    @property
    def replicas(self) -> list[int]:
        """The numbers of all replicas that were called."""
        return sorted({replica for call in self.calls for replica in call.replicas})

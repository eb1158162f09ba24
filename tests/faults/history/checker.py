"""What no history may contain. Pure: a history goes in, sentences about its violations come out."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tests.faults.history.records import SERVED, Call, History, Outage, Span

__all__ = [
    "backward_versions",
    "late_followers",
    "late_recoveries",
    "reachable",
    "recovery_seconds",
    "unexplained_failures",
    "unfit_answers",
    "violations",
    "wrong_answers",
]

# Products of several rows at a time add up in another order than those of one.
_TOLERANCE = 1e-6
# A damaged version is tried again after this time, if nothing else in the store has changed.
_HELD_BACK_SECONDS = 10.0


def violations(history: History) -> list[str]:
    """Return all that must not have happened, as sentences; none for a good run."""
    rules = (
        wrong_answers, backward_versions, unfit_answers, unexplained_failures, late_followers,
        late_recoveries,
    )  # fmt: skip
    return [sentence for rule in rules for sentence in rule(history)]


def wrong_answers(history: History) -> Iterator[str]:
    """Give the answers that the version they name does not give, and those of other versions."""
    for call in _answered(history.calls):
        release = history.releases.get(call.version)
        if release is None:
            yield f"{_of(call)}: version {call.version} was never published"
        elif call.digest != release.digest:
            yield f"{_of(call)}: digest {call.digest}, expected {release.digest}"
        elif call.selector.isdecimal() and int(call.selector) != call.version:
            yield f"{_of(call)}: version {call.version} answered"
        else:
            found, expected = call.probabilities, release.answers[call.rows]
            if found is None or not np.allclose(found, expected, rtol=0, atol=_TOLERANCE):
                yield f"{_of(call)}: not what the weights of version {call.version} give"


def backward_versions(history: History) -> Iterator[str]:
    """Give the answers of an earlier version than an answer before on the same connection."""
    newest: dict[tuple[str, str], int] = defaultdict(int)
    for call in sorted(_answered(history.calls), key=lambda call: call.began):
        if call.connection and not call.selector.isdecimal():
            key = call.connection, call.selector
            if call.version < newest[key]:
                yield f"{_of(call)}: version {call.version} after {newest[key]}"
            newest[key] = max(newest[key], call.version)


def unfit_answers(history: History) -> Iterator[str]:
    """Give the answers of rejected versions, and of those that were damaged before any load."""
    unread = [damage for damage in history.damages if damage.unread]
    for call in _answered(history.calls):
        release = history.releases.get(call.version)
        if release is not None and release.rejected:
            yield f"{_of(call)}: version {call.version}, which the gate rejected, answered"
        for damage in unread:
            within = damage.began < call.began and call.ended < damage.ended
            if damage.version == call.version and within:
                yield f"{_of(call)}: version {call.version}, which is damaged, answered"


def unexplained_failures(history: History) -> Iterator[str]:
    """Give the failures while a replica was reachable and the store had what was selected."""
    for call in history.calls:
        if call.code != "OK" and reachable(call, history.outages) and not _refusable(call, history):
            yield f"{_of(call)}: {call.code} while a replica was reachable: {call.message}"


def late_recoveries(history: History) -> Iterator[str]:
    """Give the replicas that did not serve the last good version two polls after the last fault."""
    latest = history.healed + history.due_seconds
    for replica in history.replicas:
        late = [call for call in _of_replica(history, replica) if call.began >= latest]
        if not late:
            yield f"replica {replica} answered no call after the last fault"
        wrong = [call for call in late if call.version != history.last_good]
        if wrong:
            yield (
                f"{_of(wrong[-1])}: version {wrong[-1].version} "
                f"{wrong[-1].began - history.healed:.1f} s after the last fault, expected "
                f"{history.last_good}"
            )


def late_followers(history: History) -> Iterator[str]:
    """Give the answers of an earlier version than the champion of two polls before.

    Only where nothing kept the replica from following in these two polls: a fault of the store, of
    the version or of the replica has ended before.
    """
    promoted = sorted((r.promoted, r.version) for r in history.releases.values())
    times, versions = [time for time, _ in promoted], [version for _, version in promoted]
    due = history.due_seconds
    for replica in history.replicas:
        harm = [
            *history.store_faults, *history.alias_faults, *history.damages,
            *(outage for outage in history.outages if outage.replica == replica),
        ]  # fmt: skip
        for call in _of_replica(history, replica):
            known = bisect_right(times, call.began - due)
            before = Span(began=call.began - due, ended=call.began)
            is_late = known and call.version < versions[known - 1]
            if is_late and not any(span.overlaps(before) for span in harm):
                seconds = call.began - times[known - 1]
                expected = f"{versions[known - 1]}, champion for {seconds:.1f} s"
                yield f"{_of(call)}: version {call.version}, expected {expected}"


def recovery_seconds(history: History) -> dict[int, float]:
    """Return, by replica, the seconds from the last fault to the first answer of the last version.

    Zero where it answered before; infinite where it never did.
    """
    found = {}
    for replica in history.replicas:
        ends = [
            call.ended - history.healed
            for call in _of_replica(history, replica)
            if call.version == history.last_good
        ]
        found[replica] = max(min(ends, default=float("inf")), 0.0)
    return found


def reachable(call: Call, outages: Sequence[Outage]) -> bool:
    """Return True if one of the call's replicas was reachable at every moment of the call."""
    relevant = [outage for outage in outages if outage.overlaps(call)]
    moments = [call.began, *(max(outage.began, call.began) for outage in relevant)]
    return all(set(call.replicas) - _out_at(moment, relevant) for moment in moments)


def _out_at(moment: float, outages: Iterable[Outage]) -> set[int]:
    return {outage.replica for outage in outages if outage.began <= moment <= outage.ended}


def _refusable(call: Call, history: History) -> bool:
    """Return True if the version that the call selects gave a replica a reason to refuse it."""
    if call.selector == SERVED:
        return False
    if call.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return _any_overlaps(history.store_faults, call)
    is_number = call.selector.isdecimal()
    damages = [
        damage
        for damage in history.damages
        if not is_number or call.selector == str(damage.version)
    ]
    misled = not is_number and any(span.overlaps(call) for span in _misleading(history))
    if call.code == "FAILED_PRECONDITION":
        rejected = is_number and history.releases[int(call.selector)].rejected
        return rejected or misled or _any_overlaps(damages, call, _HELD_BACK_SECONDS)
    return call.code == "NOT_FOUND" and misled


def _misleading(history: History) -> Iterator[Span]:
    """Give the times during which a replica may have wrong aliases: it reads them at every poll.

    While the store cannot be read it keeps those of its last poll.
    """
    grace = history.due_seconds
    for span in history.alias_faults:
        ended = span.ended + grace
        for fault in sorted(history.store_faults, key=lambda fault: fault.began):
            if fault.began <= ended:
                ended = max(ended, fault.ended + grace)
        yield Span(began=span.began, ended=ended)


def _any_overlaps(spans: Sequence[Span], call: Call, after: float = 0.0) -> bool:
    return any(span.overlaps(call, after) for span in spans)


def _answered(calls: Iterable[Call]) -> Iterator[Call]:
    return (call for call in calls if call.code == "OK")


def _of_replica(history: History, replica: int) -> list[Call]:
    """Return the answers that this replica and no other can have given, as to its choice."""
    return [
        call
        for call in _answered(history.calls)
        if call.replicas == (replica,) and call.selector == SERVED
    ]


def _of(call: Call) -> str:
    where = ",".join(map(str, call.replicas))
    selected = f" of {call.selector}" if call.selector else ""
    return f"client {call.client}, call{selected} to replica {where} at {call.began:.3f}"

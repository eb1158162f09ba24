"""Which versions are compared, and from which moment on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlpserve_model import CHALLENGER, CHAMPION, Store

__all__ = ["Pair", "pairs"]


@dataclass(frozen=True)
class Pair:
    """The champion and a rival of it.

    Attributes:
        champion: The version that answers.
        rival: The challenger; or on probation the champion before this one.
        since: Unix time from which on answers are evidence: when the pair came to be.
        is_probation: Whether the champion is new and the rival the one before it.
    """

    champion: int
    rival: int
    since: int
    is_probation: bool = False


def pairs(store: Store, now: float, probation: float) -> list[Pair]:
    """Return the pairs that wait for a decision: a probation first, then a challenge.

    A pair's evidence begins when the later of its two aliases moved. What was known before chose
    the pair, and must not count again as evidence about it.

    Args:
        store: The versions.
        now: Unix time.
        probation: Seconds that a new champion is compared with the one before it.

    """
    aliases = store.aliases()
    champion = aliases.get(CHAMPION)
    if champion is None:
        return []
    return list(_pairs(store, champion, aliases.get(CHALLENGER), now - probation))


def _pairs(
    store: Store, champion: int, challenger: int | None, probation_from: float
) -> Iterator[Pair]:
    history = store.history()
    promotion = _last_move(history, CHAMPION, champion)
    crowned = _time(promotion)
    previous = promotion.get("previous")
    is_new = promotion.get("event") == "promote" and crowned >= probation_from
    if is_new and type(previous) is int and previous != champion and _is_there(store, previous):
        yield Pair(champion, previous, crowned, is_probation=True)
    if challenger not in (None, champion):
        named = _time(_last_move(history, CHALLENGER, challenger))
        yield Pair(champion, challenger, max(crowned, named))


def _is_there(store: Store, version: int) -> bool:
    """Return True unless the version was pruned, as one may be that has no alias any more."""
    return store.stamp(version) is not None


def _last_move(history: Sequence[Mapping[str, Any]], alias: str, version: int) -> Mapping[str, Any]:
    """Return the last event that pointed an alias at a version; nothing if none is recorded.

    An event that takes the alias away has its version as the previous one. A judge that was killed
    may have recorded that it retires a challenger which is one still.
    """
    events = (e for e in reversed(history) if e.get("previous") != version)
    moves = (e for e in events if (e.get("alias"), e.get("version")) == (alias, version))
    return next(moves, {})


def _time(event: Mapping[str, Any]) -> int:
    """Return the Unix time of an event; the year 1970 for one that does not say it."""
    try:
        return int(datetime.fromisoformat(str(event.get("time"))).timestamp())
    except (ValueError, OverflowError):
        return 0

"""Faults of the store: its bytes, its volume, the way to it."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from mlpserve_model import StoreError
from tests.faults.history.system import STORE, Inflict, Kind, System
from tests.support.faults import flipped
from tests.support.places import FolderPlace, Place
from tests.support.tcp_proxy import Way

__all__ = ["STORE_FAULTS"]

_ALIASES, _HISTORY = "aliases.json", "history.jsonl"
_MANIFEST, _WEIGHTS, _GOLDEN = "manifest.json", "model.npz", "golden.npz"
_FILLER = ".filler"
# What a damaged file has instead of its bytes; None for a file that is gone.
Damaged = bytes | None
# From the file and the same file of another version to what stands there afterwards.
Edit = Callable[[bytes, bytes, random.Random], Damaged]


def _flipped(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return flipped(data, rng)


def _truncated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _removed(data: bytes, other: bytes, rng: random.Random) -> None:
    return None


def _exchanged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return other


_EDITS: Sequence[tuple[str, Edit]] = [
    (_WEIGHTS, _flipped), (_WEIGHTS, _truncated), (_WEIGHTS, _removed), (_WEIGHTS, _exchanged),
    (_GOLDEN, _truncated), (_MANIFEST, _flipped), (_MANIFEST, _truncated), (_MANIFEST, _exchanged),
]  # fmt: skip


class _Damage:
    """One damaged file of a version, and what it was."""

    def __init__(self, system: System, version: int, rng: random.Random) -> None:
        file, edit = rng.choice(_EDITS)
        other = max(set(system.publisher.releases) - {version})
        self._place = system.place
        self._name = f"{version}/{file}"
        self._whole = self._place.read(self._name)
        self._damaged = edit(self._whole, self._place.read(f"{other}/{file}"), rng)

    def inflict(self) -> None:
        """Damage the file."""
        _put(self._place, self._name, self._damaged)

    def undo(self) -> None:
        """Put the file back."""
        self._place.write(self._name, self._whole)


def _put(place: Place, name: str, data: Damaged) -> None:
    if data is None:
        place.remove(name)
    else:
        place.write(name, data)


@contextmanager
def newest_damaged(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Damage a file of the champion, which servers may have in memory, and put it back."""
    publisher = system.publisher
    with publisher.turn:
        version = max(v for v, release in publisher.releases.items() if not release.rejected)
        damage = _Damage(system, version, rng)
    with system.record.damage(version, unread=False):
        damage.inflict()
        yield
        damage.undo()


@contextmanager
def damaged_released(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Make a champion that is damaged from the start, so that nothing may answer with it."""
    with ExitStack() as stack:

        def damage(version: int) -> None:
            damage = _Damage(system, version, rng)
            stack.enter_context(system.record.damage(version, unread=False))
            damage.inflict()
            stack.callback(damage.undo)
            stack.enter_context(system.record.damage(version, unread=True))

        # Its manifest may be what is damaged; then no alias can be moved to it.
        with suppress(StoreError):
            system.publisher.publish(before_it_is_known=damage)
        yield


@contextmanager
def aliases_garbled(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Put something else where the aliases are, and put them back unless they were written."""
    publisher, place = system.publisher, system.place
    rejected = [v for v, release in publisher.releases.items() if release.rejected]
    with system.record.span(system.record.alias_faults):
        with publisher.turn:
            whole = place.read(_ALIASES)
            garbled = rng.choice(
                [
                    _misspelt(whole, rng),
                    whole[: len(whole) // 2],
                    rng.randbytes(100),
                    b"",
                    b"{}",
                    json.dumps({"champion": 10**6}).encode(),
                    json.dumps({"champion": max(rejected, default=0)}).encode(),
                ]
            )
            place.write(_ALIASES, garbled)
        yield
        with publisher.turn:
            if place.read(_ALIASES) == garbled:
                place.write(_ALIASES, whole)


def _misspelt(aliases: bytes, rng: random.Random) -> bytes:
    """Flip a bit of the aliases, none of a number: that would be a rollback like any other."""
    places = [place for place, byte in enumerate(aliases) if not chr(byte).isdigit()]
    place = rng.choice(places)
    return aliases[:place] + flipped(aliases[place : place + 1], rng) + aliases[place + 1 :]


@contextmanager
def history_garbled(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Damage the history, by which manifests are verified, and put it back; nobody publishes."""
    publisher, place = system.publisher, system.place
    with publisher.turn, ExitStack() as stack:
        for version in publisher.releases:
            stack.enter_context(system.record.damage(version, unread=False))
        whole = place.read(_HISTORY)
        edits = [flipped(whole, rng), whole[: rng.randrange(len(whole))], rng.randbytes(1000), None]
        _put(place, _HISTORY, rng.choice(edits))
        yield
        place.write(_HISTORY, whole)


@contextmanager
def moved_away(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Move the store away, and back; nobody publishes into what is not there."""
    folder = system.place.folder if isinstance(system.place, FolderPlace) else None
    assert folder
    away = folder.with_name(f"{folder.name}.away")
    with system.publisher.turn, system.record.span(system.record.store_faults):
        folder.rename(away)
        yield
        away.rename(folder)


@contextmanager
def volume_filled(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Leave no room on the volume: who publishes gets an error, who serves does not notice."""
    assert system.volume
    filler = system.volume / _FILLER
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@contextmanager
def bucket_unreachable(system: System, target: int, rng: random.Random) -> Iterator[None]:
    """Cut some or all off from the object store: connections are refused, or nothing comes."""
    ways = rng.choice([system.bucket_ways, [rng.choice(system.bucket_ways)]])
    hold = rng.random() < 0.5
    with system.record.span(system.record.store_faults):
        for way in ways:
            _close(way, hold)
        yield
        for way in ways:
            way.held = way.closed = False


def _close(way: Way, hold: bool) -> None:
    way.held, way.closed = hold, not hold
    if not hold:
        way.cut()


def _on_every_store(system: System) -> Sequence[int]:
    return [STORE]


def _on_folders(system: System) -> Sequence[int]:
    return [STORE] if isinstance(system.place, FolderPlace) else []


def _on_volumes(system: System) -> Sequence[int]:
    return [STORE] if system.volume else []


def _on_buckets(system: System) -> Sequence[int]:
    return [STORE] if system.bucket_ways else []


_TARGETS: Mapping[str, tuple[Inflict, Callable[[System], Sequence[int]]]] = {
    "newest version damaged": (newest_damaged, _on_every_store),
    "damaged version released": (damaged_released, _on_every_store),
    "aliases garbled": (aliases_garbled, _on_every_store),
    "history garbled": (history_garbled, _on_every_store),
    "store moved away": (moved_away, _on_folders),
    "volume full": (volume_filled, _on_volumes),
    "bucket unreachable": (bucket_unreachable, _on_buckets),
}
STORE_FAULTS = [Kind(name, inflict, targets) for name, (inflict, targets) in _TARGETS.items()]

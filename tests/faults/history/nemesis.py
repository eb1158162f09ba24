"""Does faults to a system by a plan that a seed decides."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.history.records import Fault
from tests.faults.history.system import STORE, Kind, System

__all__ = ["Nemesis", "Step", "plan"]

_LASTING = 0.3, 4.0  # seconds; calls wait for ten
_JITTER = 0.5


@dataclass(frozen=True)
class Step:
    """One fault of a plan.

    Attributes:
        at: seconds from the start.
        kind: name of the kind.
        seconds: how long it lasts.
        seed: decides what else there is to choose.

    """

    at: float
    kind: str
    seconds: float
    seed: int


def plan(seed: int, seconds: float, every: float, kinds: Sequence[str]) -> list[Step]:
    """Return faults, one `every` so many seconds: each kind once, then each once again, ..."""
    rng = random.Random(seed)
    steps: list[Step] = []
    deck: list[str] = []
    at = every
    while at < seconds:
        if not deck:
            deck = rng.sample(kinds, len(kinds))
        steps.append(Step(at, deck.pop(), rng.uniform(*_LASTING), rng.getrandbits(32)))
        at += every * rng.uniform(1 - _JITTER, 1 + _JITTER)
    return steps


class Nemesis:
    """Does faults to a system: several at a time, but never two to one replica or to the store."""

    def __init__(self, system: System, kinds: Sequence[Kind]) -> None:
        self._system = system
        self._kinds = {kind.name: kind for kind in kinds}
        self._busy: set[int] = set()
        self._free = threading.Condition()

    def run(self, steps: Sequence[Step]) -> None:
        """Do all that is planned, and return when the last trace of it is gone."""
        started = time.monotonic()
        threads = []
        for step in steps:
            if self._system.done.wait(max(started + step.at - time.monotonic(), 0)):
                break
            target = self._take(self._kinds[step.kind], step)
            threads.append(threading.Thread(target=self._inflict, args=(step, target)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _take(self, kind: Kind, step: Step) -> int:
        """Return a target of this kind that is free, as soon as there is one."""
        targets = kind.targets(self._system)
        with self._free:
            self._free.wait_for(lambda: set(targets) - self._busy)
            target = random.Random(step.seed).choice(sorted(set(targets) - self._busy))
            self._busy.add(target)
            return target

    def _inflict(self, step: Step, target: int) -> None:
        record = self._system.record
        began = time.monotonic()
        try:
            with (
                self._freeing(target),
                self._kinds[step.kind].inflict(self._system, target, random.Random(step.seed)),
            ):
                self._system.done.wait(step.seconds)
        except Exception as error:
            record.problems.append(f"{step.kind}: {error!r}")
        name = "store" if target == STORE else f"replica {target}"
        fault = Fault(began=began, ended=time.monotonic(), kind=step.kind, target=name)
        record.faults.append(fault)

    @contextmanager
    def _freeing(self, target: int) -> Iterator[None]:
        try:
            yield
        finally:
            with self._free:
                self._busy.discard(target)
                self._free.notify_all()

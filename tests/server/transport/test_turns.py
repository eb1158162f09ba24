"""Turns at the processor go from hand to hand: by models, and in order within each."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from mlpserve_server.transport.turns import ModelQueue, Turns
from tests.support.waiting import eventually


class Computing:
    """Calls that have a turn until they are told to end; `began` has them in order."""

    def __init__(self, at_once: int, threads: ThreadPoolExecutor) -> None:
        self.turns = Turns(at_once)
        self.began: list[str] = []
        self._threads = threads
        self._ends: dict[str, threading.Event] = {}

    def start(self, name: str, step: Callable[[Callable[[], None]], None] | None = None) -> None:
        """Start a call of the model that its name begins with, which waits unless there is room."""
        waiting = self.count_waiting()
        self._ends[name] = threading.Event()
        call = self._threads.submit(self._run, name, step)
        eventually(lambda: call.done() or name in self.began or self.count_waiting() > waiting)

    def end(self, name: str) -> None:
        self._ends[name].set()

    def count_waiting(self) -> int:
        return sum(self.turns._waiting.count().values())

    def _run(self, name: str, step: Callable[[Callable[[], None]], None] | None) -> None:
        with self.turns.turn(name[0]) as let_others_go_first:
            self.began.append(name)
            assert self._ends[name].wait(20)
            if step:
                step(let_others_go_first)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


def test_a_flood_of_one_model_is_behind_a_call_of_another(threads: ThreadPoolExecutor) -> None:
    computing = Computing(1, threads)
    for name in ("a0", "a1", "a2", "a3", "b0", "c0", "b1"):
        computing.start(name)
    assert computing.began == ["a0"]
    expected = ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]
    for count, name in enumerate(expected, 1):
        eventually(lambda count: len(computing.began) == count, count)
        computing.end(name)
    assert computing.began == expected


def test_as_many_compute_at_once_as_may(threads: ThreadPoolExecutor) -> None:
    computing = Computing(2, threads)
    for name in ("a0", "a1", "a2"):
        computing.start(name)
    assert sorted(computing.began) == ["a0", "a1"]
    for name in ("a0", "a1", "a2"):
        computing.end(name)
    eventually(lambda: len(computing.began) == 3)


def test_a_long_answer_lets_other_models_go_first_and_then_goes_on(
    threads: ThreadPoolExecutor,
) -> None:
    computing = Computing(1, threads)
    steps: list[str] = []

    def long(let_others_go_first: Callable[[], None]) -> None:
        for _ in range(3):
            steps.append("a0")
            let_others_go_first()

    computing.start("a0", long)
    computing.start("a1")
    computing.start("b0", lambda _: steps.append("b0"))
    for name in ("a1", "b0", "a0"):
        computing.end(name)
    eventually(lambda: computing.began == ["a0", "b0", "a1"])
    assert steps == ["a0", "b0", "a0", "a0"], "a1 is behind the one that began before it"


def test_an_answer_that_fails_hands_its_turn_on(threads: ThreadPoolExecutor) -> None:
    turns = Turns(1)

    def fail() -> None:
        with turns.turn("a"):
            raise ValueError

    failed: list[Future[None]] = [threads.submit(fail) for _ in range(100)]
    assert {type(call.exception(timeout=20)) for call in failed} == {ValueError}
    with turns.turn("b"):
        pass


def test_others_are_those_of_other_models() -> None:
    queue: ModelQueue[str] = ModelQueue()
    assert not queue.has_others("a")
    queue.put("a", "first")
    assert not queue.has_others("a")
    assert queue.has_others("b")
    queue.put("b", "second")
    assert queue.has_others("a")
    assert [queue.take(), queue.take(), queue.take()] == ["first", "second", None]

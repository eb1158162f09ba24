import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mlpserve_trainer.team import Team, Work, in_turns, side_by_side

Run = Callable[[Sequence[Work]], object]
EVERY_WAY = pytest.mark.parametrize("run", [in_turns, side_by_side, Team().run])


@EVERY_WAY
@pytest.mark.parametrize("members", [1, 2, 3])
def test_nobody_goes_on_before_all_have_come_to_the_meeting(run: Run, members: int) -> None:
    steps, seen = [0] * members, []

    def work(member: int) -> Iterator[None]:
        for step in range(1, 400):
            steps[member] = step
            yield
            seen.append(min(steps) >= step)
            yield

    run([work(member) for member in range(members)])
    assert seen == [True] * 399 * members


def test_the_members_work_side_by_side() -> None:
    met = threading.Barrier(2, timeout=10)

    def work() -> Iterator[None]:
        met.wait()
        yield

    side_by_side([work(), work()])
    assert not met.broken


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_ends_all_works_and_is_raised(culprit: int) -> None:
    passed = []

    def work(member: int) -> Iterator[None]:
        yield
        if member == culprit:
            raise ValueError("no luck")
        yield
        passed.append(member)

    with pytest.raises(ValueError, match="no luck"):
        side_by_side([work(0), work(1)])
    assert passed == []


def test_an_interruption_does_not_wait_for_one_who_never_comes() -> None:
    def interrupted() -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    def patient() -> Iterator[None]:
        while True:
            yield

    with pytest.raises(KeyboardInterrupt):
        side_by_side([interrupted(), patient()])


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_is_left_behind(fails: bool) -> None:
    threads = []

    def work() -> Iterator[None]:
        threads.append(threading.current_thread())
        yield
        if fails:
            raise ValueError

    try:
        side_by_side([work(), work(), work()])
    except ValueError:
        assert fails
    assert [thread.is_alive() for thread in threads] == [
        thread is threading.current_thread() for thread in threads
    ]
    assert len(set(threads)) == 3


def test_in_turns_is_one_thread() -> None:
    threads = set()

    def work() -> Iterator[None]:
        threads.add(threading.current_thread())
        yield

    in_turns([work(), work(), work()])
    assert threads == {threading.current_thread()}


@EVERY_WAY
def test_what_numpy_does_about_overflow_is_what_the_caller_said(run: Run) -> None:
    def work() -> Iterator[None]:
        yield
        np.multiply(np.float32(1e30), np.float32(1e30))

    with np.errstate(over="ignore"):
        run([work(), work()])
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        run([work(), work()])


@pytest.mark.parametrize("way", [in_turns, side_by_side])
def test_works_can_be_left_and_taken_up_again_at_any_meeting(
    way: Callable[[Sequence[Work], int | None], bool],
) -> None:
    steps = [0, 0]

    def work(member: int) -> Iterator[None]:
        for _ in range(10):
            steps[member] += 1
            yield

    works = [work(0), work(1)]
    assert way(works, 3)
    assert steps == [3, 3]
    assert way(works, 7)
    assert not way(works, 1)
    assert steps == [10, 10]


def test_a_team_goes_the_way_that_is_faster() -> None:
    ways: list[bool] = []

    def work() -> Iterator[None]:
        for _ in range(2000):
            alone = threading.active_count() == threads
            ways.append(alone)
            time.sleep(0 if alone else 0.02)
            yield

    threads = threading.active_count()
    Team().run([work(), work()])
    assert sum(ways) > 0.9 * len(ways)

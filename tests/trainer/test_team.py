import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from mlpserve_trainer.team import Work, in_turns, side_by_side

BOTH = pytest.mark.parametrize("team", [in_turns, side_by_side])
Team = Callable[[Sequence[Work]], None]


@BOTH
@pytest.mark.parametrize("members", [1, 2, 3])
def test_nobody_goes_on_before_all_have_come_to_the_meeting(team: Team, members: int) -> None:
    steps, seen = [0] * members, []

    def work(member: int) -> Iterator[None]:
        for step in range(1, 50):
            steps[member] = step
            yield
            seen.append(min(steps) >= step)
            yield

    team([work(member) for member in range(members)])
    assert seen == [True] * 49 * members


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


@BOTH
def test_what_numpy_does_about_overflow_is_what_the_caller_said(team: Team) -> None:
    def work() -> Iterator[None]:
        yield
        np.multiply(np.float32(1e30), np.float32(1e30))

    with np.errstate(over="ignore"):
        team([work(), work()])
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        team([work(), work()])

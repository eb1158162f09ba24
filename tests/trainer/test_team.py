import threading

import pytest

from mlpserve_trainer.team import Team


def test_every_member_does_its_part_and_the_sum_comes_back() -> None:
    with Team(3) as team:
        assert team.run(lambda member: 10.0**member) == 111


def test_the_members_work_side_by_side() -> None:
    met = threading.Barrier(2, timeout=10)
    with Team(2) as team:
        team.run(lambda member: float(met.wait() >= 0))


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_is_raised_when_all_have_ended(culprit: int) -> None:
    ended = []

    def task(member: int) -> float:
        ended.append(member)
        if member == culprit:
            raise ValueError("no luck")
        return 1.0

    with Team(2) as team:
        with pytest.raises(ValueError, match="no luck"):
            team.run(task)
        assert sorted(ended) == [0, 1]
        assert team.run(lambda member: 1.0) == 2


def test_no_thread_is_left_behind() -> None:
    workers: list[threading.Thread] = []

    def task(member: int) -> float:
        if member:
            workers.append(threading.current_thread())
        return 0.0

    with Team(2) as team:
        team.run(task)
    workers[0].join(10)
    assert not workers[0].is_alive()


def test_one_thread_can_do_every_part() -> None:
    threads = []

    def task(member: int) -> float:
        threads.append(threading.current_thread())
        return 10.0**member

    with Team(3, side_by_side=False) as team:
        assert team.run(task) == 111
    assert set(threads) == {threading.current_thread()}

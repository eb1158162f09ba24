from collections.abc import Callable

import pytest

from mlpserve_server.evidence.quota import Quota


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_minutes_worth_may_come_at_once_and_no_more(clock: Clock) -> None:
    quota = Quota(60, clock)
    assert [quota.take("a", 1) for _ in range(60)] == [0] * 60
    assert quota.take("a", 1) == pytest.approx(1)
    assert quota.take("b", 1) == 0, "one source has used up another's"


def test_the_wait_that_is_told_is_enough_and_not_too_long(clock: Clock) -> None:
    quota = Quota(600, clock)
    quota.take("a", 1000)
    wait = quota.take("a", 1)
    assert wait == pytest.approx(40.1)
    clock.now += wait - 0.2
    assert quota.take("a", 1) > 0
    clock.now += 0.21
    assert quota.take("a", 1) == 0


@pytest.mark.parametrize("rate", [0.01, 0.5, 7.0, 600.0])
def test_over_a_long_time_the_rate_holds(clock: Clock, rate: float) -> None:
    quota = Quota(rate, clock)
    minutes = 10_000 if rate < 1 else 100
    taken = _greedy(quota.take, clock, minutes * 60)
    assert rate * minutes * 0.95 - 1 <= taken <= rate * (minutes + 1) + 3


def _greedy(take: Callable[[str, int], float], clock: Clock, seconds: float) -> int:
    """Take three whenever it is allowed; return how many were taken."""
    until, taken = clock.now + seconds, 0
    while clock.now < until:
        wait = take("a", 3)
        taken += 0 if wait else 3
        clock.now += wait + 1e-6
    return taken

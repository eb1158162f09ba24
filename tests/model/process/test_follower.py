"""A follower goes on whatever happens, and does not end unnoticed."""

import logging
import threading

import pytest

from mlpserve_model.process.follower import Follower, Over


class Polled:
    """What a follower calls: fails as told, then works."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.worked = threading.Event()
        self.failures = 0
        self.ended = threading.Event()

    def poll(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.worked.set()

    def failed(self) -> None:
        self.failures += 1

    def follower(self) -> Follower:
        return Follower("files", self.poll, 0.001, self.failed, self.ended.set)


@pytest.mark.parametrize("error", [OSError("gone"), MemoryError(), ValueError(), RecursionError()])
def test_a_poll_that_fails_is_counted_and_followed_by_another(error: Exception) -> None:
    polled = Polled(error, error)
    follower = polled.follower()
    follower.start()
    assert polled.worked.wait(10)
    assert follower.alive
    follower.join()
    assert polled.failures == 2
    assert not polled.ended.is_set()


def test_the_same_failure_is_logged_once_until_a_poll_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    polled = Polled(*(OSError("gone") for _ in range(5)), OSError("other"), OSError("gone"))
    follower = polled.follower()
    follower.start()
    assert polled.worked.wait(10)
    follower.join()
    assert [r.getMessage() for r in caplog.records] == ["a follower failed"] * 3
    assert {vars(r)["follower"] for r in caplog.records} == {"files"}


def test_a_follower_that_dies_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    polled = Polled(SystemExit(1))
    follower = polled.follower()
    follower.start()
    assert polled.ended.wait(10)
    follower._thread.join()
    assert not follower.alive
    [record] = caplog.records
    assert (record.getMessage(), record.levelno) == ("a follower ended", logging.ERROR)


def test_a_follower_that_has_nothing_left_to_follow_ends_in_peace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    polled = Polled(Over())
    follower = polled.follower()
    follower.start()
    follower._thread.join(10)
    assert follower.alive
    assert not polled.ended.is_set()
    assert not caplog.records


def test_a_follower_that_was_never_started_can_be_stopped() -> None:
    Polled().follower().join()

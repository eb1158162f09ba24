import pytest

from mlpserve_model import Network
from mlpserve_server.dataplane.admission import MIN_QUEUE, ByteLimiter, QueueLimit, RowLimiter
from mlpserve_server.dataplane.inference import rows_at_once
from mlpserve_server.errors import Overloaded


def paced(waiting: QueueLimit, seconds_a_call: float) -> int:
    """The bound after many answers at this pace."""
    for _ in range(100):
        waiting.record(10, 10 * seconds_a_call)
    return waiting.limit


def test_nobody_is_kept_out_before_the_pace_is_known() -> None:
    assert QueueLimit(1000, seconds=0.01).limit == 1000


def test_as_many_may_wait_as_are_answered_in_time() -> None:
    assert paced(QueueLimit(1000, seconds=0.01), 0.01 / 200) == pytest.approx(200, abs=1)


def test_so_many_may_always_wait_however_slow_the_model() -> None:
    assert paced(QueueLimit(1000, seconds=0.01), 60) == MIN_QUEUE


def test_never_more_wait_than_is_set() -> None:
    assert paced(QueueLimit(3, seconds=0.01), 60) == 3
    assert paced(QueueLimit(30, seconds=0.01), 1e-6) == 30
    assert paced(QueueLimit(30, seconds=0.01), 0) == 30


def test_the_bound_follows_the_pace_gradually_and_back() -> None:
    waiting = QueueLimit(1000, seconds=0.01)
    assert paced(waiting, 0.01 / 500) == pytest.approx(500, abs=1)
    waiting.record(10, 10 * 0.01 / 100)
    assert 100 < waiting.limit < 500
    assert paced(waiting, 0.01 / 500) == pytest.approx(500, abs=1)


def refused(rows: RowLimiter, model: str, count: int) -> bool:
    try:
        with rows.admitted(model, count):
            return False
    except Overloaded:
        return True


def test_rows_beyond_the_bound_are_refused_and_what_ends_makes_room() -> None:
    rows = RowLimiter(100)
    with rows.admitted("a", 60):
        with pytest.raises(Overloaded, match="100"), rows.admitted("a", 41):
            pass
        assert not refused(rows, "a", 40)
    assert not refused(rows, "a", 100)


def test_a_model_that_has_all_the_rows_keeps_no_other_from_its_share() -> None:
    rows = RowLimiter(100)
    with rows.admitted("a", 90), rows.admitted("b", 30):
        assert refused(rows, "a", 1)
        assert not refused(rows, "b", 20)
        assert refused(rows, "b", 21)
        with rows.admitted("c", 80):  # the first one, whatever there is
            assert refused(rows, "c", 1)
    assert refused(rows, "c", 101)
    with rows.admitted("a", 1):
        assert not refused(rows, "a", 99)


@pytest.mark.parametrize(
    ("hidden", "rows"), [((128,), 512), ((512, 256), 125), ((4096, 4096), 32), ((1,), 512)]
)
def test_a_large_network_computes_fewer_rows_of_a_batch_at_once(
    hidden: tuple[int, ...], rows: int
) -> None:
    assert rows_at_once(Network((784, *hidden, 10))) == rows


def test_a_holder_of_bytes_gets_more_only_while_they_are_free() -> None:
    limiter = ByteLimiter(100)
    assert limiter.take(30)
    assert limiter.extend(30, 80) == 80
    assert limiter.extend(80, 50) == 80
    assert limiter.count == 80
    with pytest.raises(Overloaded):
        limiter.extend(80, 101)
    assert limiter.count == 80
    limiter.add(1000)  # an answer, beyond the maximum
    assert limiter.extend(80, 80) == 80, "who needs no more is not refused"


def test_bytes_are_full_where_somebody_waits_for_them_in_vain() -> None:
    now = 100.0
    limiter = ByteLimiter(100, lambda: now)
    assert limiter.take(10)
    for _ in range(20):
        assert not limiter.take(95)
        assert limiter.is_full == (now > 100.5)
        now += 0.05
    assert limiter.take(20)
    assert limiter.is_full, "it is not what is waited for"
    now += 0.2
    assert not limiter.is_full, "nobody waits any more"
    now += 2
    assert not limiter.take(95)
    assert not limiter.is_full, "not for long yet"


def test_a_wait_is_noticed_although_the_thread_comes_to_ask_rarely() -> None:
    now = 100.0
    limiter = ByteLimiter(100, lambda: now)
    assert limiter.take(10)
    for _ in range(3):
        assert not limiter.take(95)
        now += 0.4
    assert not limiter.take(95)
    assert limiter.is_full


def test_bytes_that_were_waited_for_and_had_are_not_full() -> None:
    now = 100.0
    limiter = ByteLimiter(100, lambda: now)
    assert limiter.take(10)
    for _ in range(20):
        assert not limiter.take(95)
        now += 0.05
    limiter.release(10)
    assert limiter.take(95)
    limiter.release(95)
    assert not limiter.is_full

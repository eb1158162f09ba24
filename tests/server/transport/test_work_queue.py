from mlpserve_server.dataplane.predictions import Steps
from mlpserve_server.dataplane.query import Result
from mlpserve_server.transport.work_queue import Batch, WorkQueue

ANSWER = Result(b"answer", rows=1, version=1)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(queue: WorkQueue[str], clock: Clock, seconds: float) -> None:
    queue.begin()
    clock.now += seconds
    queue.end()


def steps() -> Steps:
    yield "a"
    return ANSWER


def test_there_is_no_waiting_while_there_is_work() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    idle = queue.patience(busy=False)
    assert not queue
    queue.singles.append(("a", b""))
    assert queue
    assert queue.patience(busy=True) == 0
    queue.take_singles()
    queue.infers.append(("b", b""))
    assert queue.patience(busy=True) == 0
    queue.take_infers()
    queue.put_batch("a", Batch("c", steps(), steps))
    assert queue.patience(busy=True) == 0
    queue.take_batch()
    assert queue.patience(busy=False) == idle > queue.patience(busy=True) > 0


def test_what_is_taken_is_taken_once_and_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    queue.singles += [("a", b"1"), ("b", b"2")]
    queue.infers += [("c", b"3")]
    assert queue.take_singles() == [("a", b"1"), ("b", b"2")]
    assert queue.take_infers() == [("c", b"3")]
    assert queue.take_singles() == queue.take_infers() == []


def test_a_call_that_the_pool_works_on_is_looked_for_often() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    idle = queue.patience(busy=True)
    queue.hand_over()
    assert 0 < queue.patience(busy=True) < idle
    queue.hand_back("a", ANSWER)
    assert queue.patience(busy=True) == 0
    assert queue.take_handed_back() == [("a", ANSWER)]
    assert queue.patience(busy=True) == idle


def test_events_get_three_times_the_time_of_the_work_before() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    assert queue.events_until() == clock.now
    work(queue, clock, 2)
    assert queue.events_until() == clock.now + 6


def test_only_long_work_leaves_a_backlog_for_the_next_work_and_for_a_while() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    work(queue, clock, 0.001)
    assert not queue.has_backlog()
    work(queue, clock, 1)
    work(queue, clock, 0.001)
    assert queue.has_backlog()
    clock.now += 1
    assert not queue.has_backlog()
    work(queue, clock, 1)
    clock.now += 0.9
    assert queue.has_backlog(), "however long reading the requests took"
    clock.now += 0.2
    assert not queue.has_backlog(), "no call has waited that long"


def test_housekeeping_is_due_once_in_a_while() -> None:
    clock = Clock()
    queue: WorkQueue[str] = WorkQueue(clock)
    assert queue.housekeeping_is_due()
    assert not queue.housekeeping_is_due()
    clock.now += 1
    assert queue.housekeeping_is_due()


def test_models_take_turns_and_the_batches_of_each_do() -> None:
    queue: WorkQueue[str] = WorkQueue(Clock())
    for call in ("a1", "a2", "a3", "b1", "c1"):
        queue.put_batch(call[0], Batch(call, steps(), steps))
    assert queue.count_batches() == {"a": 3, "b": 1, "c": 1}
    order = []
    for _ in range(9):
        batch = queue.take_batch()
        assert batch
        order.append(batch.call)
        queue.put_batch(batch.call[0], batch)
    assert order == ["a1", "b1", "c1", "a2", "b1", "c1", "a3", "b1", "c1"]

"""Which calls say how long a call takes: those that were computed together."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlpserve_server.dataplane.admission import ByteLimiter, QueueLimit
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import ManyRows, NotInMemory
from mlpserve_server.observability.observer import Observer
from mlpserve_server.transport.call_runner import CallRunner

DONE, MANY, AWAY = Result(b"", 1, 1, "mnist"), ManyRows("many"), NotInMemory("away")


@pytest.mark.parametrize(
    ("answers", "recorded"),
    [
        ([DONE] * 3, []),
        ([DONE] * 8, [8]),
        ([DONE] * 7 + [MANY], [7]),
        ([AWAY] + [DONE] * 7, [7]),
        ([DONE] * 4 + [MANY] * 4, []),  # the time is that of decoding the others
        ([MANY] * 8, []),
    ],
)
def test_the_pace_is_that_of_calls_that_were_computed(
    answers: list[Any], recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    queue = QueueLimit(1000, 0.05)
    monkeypatch.setattr(queue, "record", lambda calls, _: found.append(calls))
    data: Any = SimpleNamespace(infer=lambda *_: answers, infer_in_steps=object())
    limits: Any = SimpleNamespace(queue=queue, bytes=ByteLimiter(1000))
    runner = CallRunner(data, limits, Observer(), is_scoped=False)
    begun: list[bytes] = []
    monkeypatch.setattr(runner, "_begin", lambda call, request, steps: begun.append(request))
    monkeypatch.setattr(runner.calls, "finish", lambda call, outcome: None)
    call: Any = SimpleNamespace(is_abandoned=lambda now: False)
    runner.work.infers += [(call, b"request")] * len(answers)
    runner.work_once()
    runner.close()
    assert found == recorded
    assert len(begun) == len(answers) - answers.count(DONE)

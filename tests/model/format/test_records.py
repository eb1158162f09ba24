"""The highest number of a history, without reading all of it."""

import json
import random
import tracemalloc

import pytest

from mlpserve_model.format import records
from mlpserve_model.format.records import highest_recorded, recorded_digests


def history(*events: tuple[str, int | None]) -> bytes:
    lines = (json.dumps({"event": event, "version": version}) for event, version in events)
    return "".join(line + "\n" for line in lines).encode()


PUBLISHED = history(*(("publish", version) for version in range(1, 301)))


@pytest.mark.parametrize(
    ("data", "highest"),
    [
        (b"", 0),
        (history(("promote", None)), 0),
        (history(("publish", 3), ("publish", 4)), 4),
        (history(("publish", 4), ("promote", 9)), 9),
        (PUBLISHED, 300),
        # However much came after the last publication.
        (PUBLISHED + history(*(("prune", version) for version in range(1, 251))), 300),
        (PUBLISHED + b'\n\n{"event": "publish", "versi', 300),
        (PUBLISHED.rstrip(b"\n"), 300),
        (b"\xff\n" + PUBLISHED + b"[1]\nnot JSON\n", 300),
        (PUBLISHED + history(("publish", 10**18)), 300),
    ],
)
def test_it_is_the_highest_of_all(data: bytes, highest: int) -> None:
    assert highest_recorded(data) == highest == max(recorded_digests(data), default=0)


def test_versions_may_be_recorded_in_another_order_than_they_were_numbered() -> None:
    order = [*range(1, 250)]
    draw = random.Random(0)
    order[-50:] = draw.sample(order[-50:], 50)
    assert highest_recorded(history(*(("publish", version) for version in order))) == 249


def test_the_digests_of_a_history_take_little_more_memory_than_its_text() -> None:
    data = PUBLISHED * 10
    tracemalloc.start()
    try:
        recorded_digests(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data)  # its lines, not all of its events


def test_a_long_history_costs_no_more_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    event = records._event

    def counting(line: bytes) -> dict[str, object] | None:
        read.append(line)
        return event(line)

    monkeypatch.setattr(records, "_event", counting)
    highest_recorded(PUBLISHED)
    short = len(read)
    highest_recorded(PUBLISHED * 5)
    assert len(read) == 2 * short

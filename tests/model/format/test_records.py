"""The highest number of a history, without reading all of it."""

import json
import random
import tracemalloc

import pytest

from mlpserve_model import Store
from mlpserve_model.format import records
from mlpserve_model.format.records import (
    highest_recorded,
    recently_published,
    recorded_digests,
)
from tests.support.publishing import Publish


def history(*events: tuple[str, int | None]) -> bytes:
    lines = (json.dumps({"event": event, "version": version}) for event, version in events)
    return "".join(line + "\n" for line in lines).encode()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the lines that are parsed from now on."""
    read: list[bytes] = []
    event = records._event

    def counting(line: bytes) -> dict[str, object] | None:
        read.append(line)
        return event(line)

    monkeypatch.setattr(records, "_event", counting)
    return read


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
    read = counted(monkeypatch)
    highest_recorded(PUBLISHED)
    short = len(read)
    highest_recorded(PUBLISHED * 5)
    assert len(read) == 2 * short


def test_what_was_published_lately_is_told_as_by_the_whole_history() -> None:
    draw = random.Random(0)
    lines = [
        json.dumps({"event": event, "version": draw.randrange(1, 40), "manifest": f"sha256:{n}"})
        for n, event in enumerate(draw.choices(["publish", "promote", "prune"], k=400))
    ]
    data = "\n".join([*lines, '{"event": "publish", "vers']).encode()
    whole, late = recorded_digests(data), recently_published(data)
    assert len(late) > 10
    assert late.items() <= whole.items()


def test_a_version_that_was_only_promoted_lately_is_not_among_them() -> None:
    old = history(("publish", 7)) + history(*(("prune", 1),) * 100)
    assert recently_published(old + history(("promote", 7))) == {}
    assert recorded_digests(old) == {7: None, 1: None}


def test_the_newest_version_of_a_long_history_is_read_from_its_end(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing beside 10,000 versions took 127 ms, beside ten 9."""
    for number in range(300):
        store.record("note", None, str(number))
    publish()
    read = counted(monkeypatch)
    assert Store(store.root, store.model).manifest(1).version == 1
    assert 0 < len(read) <= 100

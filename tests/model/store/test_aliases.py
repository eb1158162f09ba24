"""Aliases and the history: what is served, and who decided so, when and why."""

import json
import re
import threading

import pytest

from mlpserve_model import (
    CHAMPION,
    AliasConflict,
    CorruptVersion,
    Store,
    StoreError,
    VersionNotFound,
)
from tests.support.forging import Publish


def _promote(
    store: Store, version: int, expected: int | None = None, alias: str = CHAMPION
) -> None:
    store.move_alias(alias, version, expected=expected, event="promote", reason="a test")


def test_an_alias_moves_and_the_history_says_who_when_and_why(
    store: Store, publish: Publish
) -> None:
    publish()
    publish()
    _promote(store, 1)
    _promote(store, 2, expected=1)
    assert store.aliases() == {"champion": 2}
    assert store.resolve(CHAMPION) == 2
    event = store.history()[-1]
    assert {k: event[k] for k in ("event", "version", "alias", "previous", "reason")} == {
        "event": "promote", "version": 2, "alias": "champion", "previous": 1, "reason": "a test",
    }  # fmt: skip
    assert re.fullmatch(r".+@.+", event["actor"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", event["time"])


@pytest.mark.parametrize("expected", [None, 2])
def test_an_alias_that_moved_meanwhile_stays(
    expected: int | None, store: Store, publish: Publish
) -> None:
    publish()
    publish()
    _promote(store, 1)
    with pytest.raises(AliasConflict, match=f"champion points at 1, expected {expected}"):
        _promote(store, 2, expected=expected)
    assert store.aliases() == {"champion": 1}
    assert len(store.history()) == 3


def test_of_many_moves_at_once_from_one_place_one_wins(store: Store, publish: Publish) -> None:
    for _ in range(8):
        publish()
    start, won, lost = threading.Barrier(8), list[int](), list[int]()

    def move(version: int) -> None:
        start.wait()
        try:
            _promote(Store(store.folder.parent, "tiny"), version)
            won.append(version)
        except AliasConflict:
            lost.append(version)

    threads = [threading.Thread(target=move, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7
    assert store.aliases() == {"champion": won[0]}


def test_an_alias_never_points_at_what_is_not_there(store: Store, publish: Publish) -> None:
    publish()
    with pytest.raises(VersionNotFound, match="tiny has no version 2"):
        _promote(store, 2)
    assert store.aliases() == {}
    with pytest.raises(VersionNotFound, match="tiny has no alias 'champion'"):
        store.resolve(CHAMPION)


@pytest.mark.parametrize("alias", ["", "7", "Best", "a b", "a" * 64, "-x", "a/b", "a\n"])
def test_an_alias_that_could_be_mistaken_is_refused(
    alias: str, store: Store, publish: Publish
) -> None:
    publish()
    with pytest.raises(StoreError, match="must match"):
        _promote(store, 1, alias=alias)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"champion": "1"}', '{"champion": 0}', '{"champion": true}', '{"Big": 1}',
     '{"champion": 1, "champion": 1}', '{"champion": 1.0}',
     '{"champion": 1' + "0" * 400 + "}", "[" * 10**5, " " * (2**20 + 1)],
)  # fmt: skip
def test_a_damaged_alias_file_is_a_store_error_and_no_rejected_model(
    text: str, store: Store, publish: Publish
) -> None:
    publish()
    (store.folder / "aliases.json").write_text(text)
    with pytest.raises(StoreError, match=r"aliases\.json") as caught:
        store.resolve(CHAMPION)
    assert not isinstance(caught.value, CorruptVersion | VersionNotFound)
    assert store.load(1)


# History


def test_a_torn_last_line_is_left_out_and_the_next_one_stays_whole(
    store: Store, publish: Publish
) -> None:
    publish()
    with (store.folder / "history.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "event": "pub')
    publish()
    assert [event["version"] for event in store.history()] == [1, 2]


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", b"[]", b"null", b"1", b"[" * 10**5, b"\0" * 50])
def test_a_line_that_is_no_event_is_left_out(line: bytes, store: Store, publish: Publish) -> None:
    publish()
    with (store.folder / "history.jsonl").open("ab") as file:
        file.write(line + b"\n")
    publish()
    assert [event["version"] for event in store.history()] == [1, 2]


def test_a_reason_of_any_characters_is_one_line_of_history(store: Store, publish: Publish) -> None:
    publish()
    reason = 'line\nbreak\r"quote"\u2028\x1b[0m\udcff ünï'
    store.record("note", 1, reason)
    assert store.history()[-1]["reason"] == reason
    assert len((store.folder / "history.jsonl").read_bytes().split(b"\n")) == 3


def test_a_store_without_history_has_an_empty_one(store: Store) -> None:
    assert store.history() == []
    assert store.aliases() == {}


def test_the_alias_file_is_plain_json(store: Store, publish: Publish) -> None:
    publish()
    _promote(store, 1)
    assert json.loads((store.folder / "aliases.json").read_bytes()) == {"champion": 1}

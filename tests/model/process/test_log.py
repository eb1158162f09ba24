"""Logs: one line an event, whatever is logged."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve_model.process.log import FORMATS, set_up

HOSTILE = 'a\nb\r\n{"level": "error"}\x1b[2J\u2028\x00" x=1 \ud800' + "y" * 1000


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Puts the root logger back as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level


def _event(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().err.splitlines()
    event: dict[str, Any] = json.loads(line)
    return event


def test_an_event_is_one_line_of_json_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json", "info")
    logging.getLogger("mlpserve.test").info("model loaded", extra={"version": 7, "seconds": 0.5})
    event = _event(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", event.pop("time"))
    assert event.pop("process") == os.getpid()
    assert event == {
        "level": "info", "logger": "mlpserve.test", "event": "model loaded",
        "version": 7, "seconds": 0.5,
    }  # fmt: skip


def test_an_event_for_people_is_one_line_with_its_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("human", "info")
    logging.getLogger("mlpserve.test").warning("poll failed", extra={"reason": "no disk", "n": 2})
    line = capsys.readouterr().err
    assert re.fullmatch(r'\d\d:\d\d:\d\d warning poll failed reason="no disk" n=2\n', line)


def test_fields_of_a_process_stand_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("human", "info", worker=2)
    logging.getLogger("mlpserve.test").info("stopped", extra={"seconds": 1})
    assert capsys.readouterr().err.endswith("stopped seconds=1 worker=2\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_format_follows_where_the_log_goes(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    set_up("auto", "info")
    logging.getLogger("mlpserve.test").info("stopped")
    assert capsys.readouterr().err.startswith("{") != is_terminal


def test_levels_below_the_chosen_one_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json", "warning")
    logging.getLogger("mlpserve.test").info("quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("log_format", FORMATS)
def test_newlines_and_codes_in_fields_and_messages_forge_nothing(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(log_format, "info")
    logging.getLogger("mlpserve.test").info(HOSTILE, extra={"alias": HOSTILE})
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert len(text) < 2500


def test_long_fields_and_messages_are_cut_at_256_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("json", "info")
    logging.getLogger("mlpserve.test").info("m" * 300, extra={"a": "x" * 256, "b": "y" * 257})
    event = _event(capsys)
    assert event["event"] == "m" * 253 + "..."
    assert event["a"] == "x" * 256
    assert event["b"] == "y" * 253 + "..."


def test_numbers_stay_numbers_and_what_json_has_not_becomes_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("json", "info")
    values = {"n": 3, "yes": True, "none": None, "nan": float("nan"), "inf": float("inf")}
    logging.getLogger("mlpserve.test").info("figures", extra=values)
    event = _event(capsys)
    assert {key: event[key] for key in values} == {
        "n": 3, "yes": True, "none": "None", "nan": "nan", "inf": "inf",
    }  # fmt: skip


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_exception_is_one_line_that_says_what_and_where(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(log_format, "info")
    try:
        json.loads("{\n")
    except ValueError:
        logging.getLogger("mlpserve.test").exception("reload failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "JSONDecodeError" in line
    assert re.search(r"test_log\.py:\d+ > .*decoder\.py:\d+", line)
    assert "Traceback" not in line


def test_setting_up_again_replaces_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("human", "info")
    set_up("json", "info")
    logging.getLogger("mlpserve.test").info("once")
    assert _event(capsys)["event"] == "once"


VALUES = st.text() | st.integers() | st.floats() | st.binary() | st.none() | st.lists(st.text())


@settings(max_examples=300)
@given(message=st.text(), value=VALUES)
def test_any_message_and_any_value_is_one_valid_line(message: str, value: Any) -> None:
    record = logging.makeLogRecord({"msg": message, "value": value})
    for log_format in FORMATS:
        logging.getLogger().handlers = []
        set_up(log_format, "info")
        (handler,) = logging.getLogger().handlers
        line = handler.format(record)
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        if log_format == "json":
            assert set(json.loads(line)) == {"time", "level", "logger", "process", "event", "value"}

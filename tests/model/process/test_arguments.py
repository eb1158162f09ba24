"""Settings: flags beat the environment, and what is wrong is named."""

import argparse
from pathlib import Path

import pytest

from mlpserve_model.process.arguments import SettingsParser, between


@pytest.fixture
def parser() -> SettingsParser:
    parser = SettingsParser(prog="a-command")
    parser.add_store()
    parser.add_logging()
    parser.add_argument("--poll-seconds", type=between(0.01, 3600), default=1.0, help="how often")
    parser.add_argument("--max-batch", type=between(1, 10_000, int), default=8192, help="how many")
    parser.add_argument(
        "--seed", type=between(0, 2**63 - 1, int), default=0, help="where chance begins"
    )
    parser.add_argument("--transport", choices=["standard", "direct"], default="standard")
    parser.add_argument("--listen", action="append", help="where")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, 100 % of it")
    return parser


def _fails(parser: SettingsParser, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_without_flags_and_variables_the_defaults_hold(parser: SettingsParser) -> None:
    settings = parser.parse_args([])
    assert (settings.store, settings.model) == (Path("models"), "mnist")
    assert (settings.poll_seconds, settings.max_batch, settings.json) == (1.0, 8192, False)
    assert (settings.log_format, settings.log_level) == ("human", "info")


def test_a_variable_beats_the_default(
    parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_POLL_SECONDS", "0.5")
    monkeypatch.setenv("MLPSERVE_STORE", "/srv/models")
    settings = parser.parse_args([])
    assert (settings.poll_seconds, settings.store) == (0.5, Path("/srv/models"))


@pytest.mark.parametrize("flag", [["--poll-seconds", "2"], ["--poll-seconds=2"]])
def test_a_flag_beats_the_variable(
    flag: list[str], parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_POLL_SECONDS", "0.5")
    assert parser.parse_args(flag).poll_seconds == 2


def test_an_empty_variable_means_unset(
    parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_MAX_BATCH", "")
    monkeypatch.setenv("MLPSERVE_JSON", "")
    settings = parser.parse_args([])
    assert (settings.max_batch, settings.json) == (8192, False)


def test_a_value_that_begins_with_a_dash_is_a_value(
    parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_STORE", "--json")
    settings = parser.parse_args([])
    assert (settings.store, settings.json) == (Path("--json"), False)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--poll-seconds", "soon"), ("--poll-seconds", "0"), ("--poll-seconds", "-1"),
        ("--poll-seconds", "nan"), ("--poll-seconds", "inf"), ("--max-batch", "1.5"),
        ("--max-batch", "0"), ("--max-batch", "many"), ("--transport", "pigeon"),
        ("--log-format", "xml"), ("--log-level", "loud"),
    ],
)  # fmt: skip
def test_a_bad_value_ends_with_2_whether_flag_or_variable(
    flag: str, value: str, parser: SettingsParser,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    message = _fails(parser, [f"{flag}={value}"], capsys)
    assert flag in message
    assert "MLPSERVE_" not in message.splitlines()[-1]
    variable = f"MLPSERVE_{flag[2:].upper().replace('-', '_')}"
    monkeypatch.setenv(variable, value)
    message = _fails(parser, [], capsys).splitlines()[-1]
    assert flag in message
    assert variable in message


@pytest.mark.parametrize("value", ["1", "true", "yes", "True", "YES"])
def test_a_switch_is_set_by_a_true_variable(
    value: str, parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_JSON", value)
    assert parser.parse_args([]).json is True


@pytest.mark.parametrize("value", ["0", "false", "no", "No", ""])
def test_a_switch_is_not_set_by_a_false_variable_and_its_flag_still_wins(
    value: str, parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPSERVE_JSON", value)
    assert parser.parse_args([]).json is False
    assert parser.parse_args(["--json"]).json is True


def test_a_switch_that_is_neither_true_nor_false_ends_with_2(
    parser: SettingsParser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPSERVE_JSON", "perhaps")
    message = _fails(parser, [], capsys)
    assert "MLPSERVE_JSON is 'perhaps', expected one of 1, true, yes, 0, false, no" in message


def test_help_names_every_default_and_variable(
    parser: SettingsParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "how often [default: 1.0; MLPSERVE_POLL_SECONDS]" in text
    assert "where chance begins [default: 0; MLPSERVE_SEED]" in text
    assert "JSON, 100 % of it [MLPSERVE_JSON]" in text
    assert "where [MLPSERVE_LISTEN]" in text
    assert "MLPSERVE_HELP" not in text


def test_an_option_that_help_does_not_show_is_not_read_from_the_environment(
    parser: SettingsParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    monkeypatch.setenv("MLPSERVE_WORKER", "2")
    assert parser.parse_args([]).worker == 0
    assert parser.parse_args(["--worker", "2"]).worker == 2


def test_subcommands_read_the_environment_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = SettingsParser(prog="a-command")
    sub = parser.add_subparsers(required=True).add_parser("train")
    sub.add_argument("--epochs", type=between(1, 10_000, int), required=True)
    monkeypatch.setenv("MLPSERVE_EPOCHS", "3")
    assert parser.parse_args(["train"]).epochs == 3
    assert parser.parse_args(["train", "--epochs", "5"]).epochs == 5
    monkeypatch.setenv("MLPSERVE_EPOCHS", "none")
    assert "MLPSERVE_EPOCHS" in _fails(parser, ["train"], capsys)


def test_a_flag_is_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    parser = SettingsParser(prog="program")
    parser.add_argument("--store")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--stor", "x"])
    assert end.value.code == 2
    assert "--stor" in capsys.readouterr().err

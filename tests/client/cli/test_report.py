"""`mlpserve-client predict --receipt` and `report`, as scripts and people use them."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlpserve_client._cli.main import main
from mlpserve_client.testing import serve
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.client import Pixels


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


@pytest.fixture(autouse=True)
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    keys.chmod(0o600)
    with serve() as plain:
        settings = Settings(
            store=plain.store,
            listen=("127.0.0.1:0",),
            receipt_keys=keys,
            audit_share=1,
            feedback=tmp_path / "feedback",
            drain_seconds=0,
        )
        with Server(settings) as server:
            monkeypatch.setenv("MLPSERVE_TARGET", server.address)
            yield


@pytest.fixture
def file(tmp_path: Path, pixels: Pixels) -> str:
    np.save(tmp_path / "digits.npy", pixels[:3])
    return str(tmp_path / "digits.npy")


def test_what_predict_prints_can_be_reported(
    file: str, capsys: pytest.CaptureFixture[str], place: FeedbackPlace
) -> None:
    assert main(["predict", file, "--receipt", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["audit"] for row in rows)
    command = ["report", rows[1]["receipt"], "--class", "7", "--instance", file, "--index", "1"]
    assert main([*command, "--note", "badly drawn"]) == 0
    assert capsys.readouterr().out == "recorded\n"
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recorded": 0, "known": 1}
    assert main(command) == 0
    assert capsys.readouterr().out == "known: this answer was reported before\n"
    (record,) = place.reports("mnist")
    assert (record.truth, record.note) == ("7", "badly drawn")
    assert record.instance is not None


@pytest.mark.parametrize(("flag", "right"), [("--right", True), ("--wrong", False)])
def test_right_and_wrong_are_flags(
    flag: str,
    right: bool,
    file: str,
    capsys: pytest.CaptureFixture[str],
    place: FeedbackPlace,
) -> None:
    assert main(["predict", file, "--receipt", "--csv"]) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main(["report", row["receipt"], flag]) == 0
    assert [record.right for record in place.reports("mnist")] == [right]


def test_people_are_told_what_the_audit_asks(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", file, "--index", "0", "--receipt"]) == 0
    shown = capsys.readouterr().out
    assert "receipt 01" in shown
    assert "drawn for the audit: its truth is asked for" in shown
    assert main(["predict", file, "--index", "0"]) == 0
    assert "receipt" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ab"], 2, "one of the arguments --class --right --wrong is required"),
        (["ab", "--right", "--wrong"], 2, "not allowed with argument"),
        (["xy", "--right"], 1, "invalid receipt"),
        (["ab", "--right"], 1, "a receipt has 49 bytes, got 1"),
        (["ab", "--right", "--index", "1"], 2, "--index needs --instance"),
        (["ab", "--right", "--model", "mnist"], 2, "--model needs --instance"),
        (["ab", "--right", "--instance", "FILE"], 2, "has 3 rows: --index says which"),
        (["ab", "--right", "--instance", "none.npy"], 1, "none.npy"),
    ],
)
def test_wrong_usage_is_said_in_a_line(
    arguments: list[str], code: int, message: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [file if argument == "FILE" else argument for argument in arguments]
    assert _code(["report", *given]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def _code(arguments: list[str]) -> object:
    """The exit code, however the command ends."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code

"""`mlpserve doctor` finds what is wrong, and calls nothing wrong that is right."""

import socket
from pathlib import Path

import pytest

from mlpserve_cli.main import main
from tests.support.authority import Authority


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    """Run the doctor; return its exit code and its lines by subject."""
    code = main(["doctor", "--target", "127.0.0.1:1", *arguments])
    lines = (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    found = {}
    for level, rest in lines:
        subject, _, message = rest.strip().partition("  ")
        found[subject] = f"{level.strip()}: {message.strip()}"
    return code, found


def test_an_installation_with_nothing_yet_has_no_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    code, found = report(capsys)

    assert code == 0
    assert found["store"].startswith("note: there is no folder models yet")
    assert found["server"].startswith("note: nothing listens")
    assert found["extra server"].startswith("ok: ")


def test_a_damaged_champion_is_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "aliases.json").write_text("{")

    code, found = report(capsys, "--store", str(tmp_path))

    assert code == 1
    assert found["store"].startswith("problem: ")


def test_something_else_at_the_servers_port_is_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        target = f"127.0.0.1:{other.getsockname()[1]}"
        code, found = report(capsys, "--target", target, "--store", str(tmp_path / "none"))

    assert code == 1
    assert found["server"].startswith(f"problem: {target}")


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key"])
def test_half_a_certificate_is_a_problem(
    flag: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, found = report(capsys, flag, "a.pem", "--store", str(tmp_path / "none"))

    assert (code, found["certificate"]) == (1, "problem: --tls-cert and --tls-key go together")


def test_a_certificate_and_the_key_of_another_are_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue()
    _, other_key = authority.issue()
    none = ("--store", str(tmp_path / "none"), "--tls-cert", str(certificate))

    assert report(capsys, *none, "--tls-key", str(key))[1]["certificate"].startswith("ok: ")
    code, found = report(capsys, *none, "--tls-key", str(other_key))
    assert (code, found["certificate"].split(":")[0]) == (1, "problem")


def test_data_that_is_not_there_is_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "typo"

    code, found = report(capsys, "--data-dir", str(missing), "--store", str(tmp_path / "none"))

    assert (code, found["data"]) == (1, f"problem: {missing} is not there or cannot be read")

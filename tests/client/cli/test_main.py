"""The command, as scripts, probes and people use it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading

import numpy as np
import pytest

import mlpserve_client
from mlpserve_client._cli.main import main
from mlpserve_client.testing import ModelServer, serve
from tests.client.cli.conftest import COMMAND, labels_in, run
from tests.support.authority import Authority
from tests.support.client import StartScripted, StartServer

pytestmark = pytest.mark.usefixtures("target")

COMMANDS = ("predict", "explain", "models", "model", "health", "bench")
VARIABLES = (
    "MLPSERVE_TARGET",
    "MLPSERVE_TIMEOUT",
    "MLPSERVE_TLS",
    "MLPSERVE_TLS_CA",
    "MLPSERVE_TLS_CERT",
    "MLPSERVE_TLS_KEY",
    "MLPSERVE_TLS_SERVER_NAME",
    "MLPSERVE_TOKEN_FILE",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])

    text = capsys.readouterr().out
    assert exit_.value.code == 0
    assert all(variable in text for variable in VARIABLES)
    assert "default localhost:50051" in text
    assert "default 10" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["predict"],
        ["predict", "--demo", "file.npy"],
        ["predict", "--demo", "--json", "--csv"],
        ["explain"],
        ["explain", "--demo", "--label", "-1"],
        ["model", "--version", "1", "--alias", "champion"],
        ["models", "--timeout", "0"],
        ["models", "--timeout", "soon"],
        ["models", "--tls-cert", "only-half.pem"],
        ["bench", "--threads", "0"],
        ["models", "--target", "http://gateway"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)

    assert code == 2
    assert capsys.readouterr().err


def test_health_exits_with_0_when_the_server_is_ready() -> None:
    done = run("health")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"ready\n", b"")


def test_health_exits_with_1_when_there_is_no_model_but_the_server_lives(
    start: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    address = start().address

    assert main(["health", "--target", address]) == 1
    assert capsys.readouterr().err == "not ready\n"
    assert main(["health", "--target", address, "--live"]) == 0


def test_health_exits_with_1_when_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--target", "127.0.0.1:1", "--timeout", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "127.0.0.1:1" in line


def test_a_flag_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, server: ModelServer
) -> None:
    monkeypatch.setenv("MLPSERVE_TARGET", "127.0.0.1:1")

    assert main(["health", "--target", server.target]) == 0


def test_models_are_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command, before in (("models", ["MODEL", "mnist"]), ("versions", [])):
        assert main([command]) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split()[:3] == [*before[:1], "VERSION", "STATE", "ALIASES"][:3]
        assert row.split()[:3] == [*before[1:], "1", "ACTIVE", "champion"][:3]

        assert main([command, "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["version"] == 1


def test_a_model_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--alias", "champion"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["input_shape", "28, 28"] in lines
    assert ["input_maximum", "255"] in lines

    assert main(["model", "--version", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class_names"] == list("0123456789")


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlpserve-client {mlpserve_client.__version__}\n"


def test_an_unknown_version_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--version", "99"]) == 1
    assert "99" in capsys.readouterr().err


def test_the_demo_shows_pictures_beside_probabilities() -> None:
    done = run("predict", "--demo")

    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.count("mnist version 1") == 5
    assert text.count("%\n") >= 50  # ten bars for each of five digits
    assert "@@@@" in text


@pytest.mark.parametrize("shape", [(8, 8), (64,), (5,), (3, 4, 5)])
def test_the_demo_shows_golden_inputs_to_a_model_that_is_not_of_digits(
    shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(input_shape=shape, class_names=("yes", "no")) as server:
        command = ["predict", "--demo", "--json", "--target", server.target]
        command += ["--store", str(server.store)]
        with np.load(server.store / "mnist" / "1" / "golden.npz") as golden:
            expected = golden["probabilities"]

        assert main(command) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert main([*command, "--index", "1:3"]) == 0
        chosen = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    np.testing.assert_allclose([a["probabilities"] for a in answers], expected, atol=1e-4)
    assert {each["input"] for each in answers} == {"golden"}
    assert chosen == answers[1:3]


def test_the_demo_says_that_its_numbers_are_random_where_the_store_holds_another_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("yes", "no")
    with (
        serve(input_shape=(5,), class_names=names) as server,
        serve(input_shape=(6,), class_names=names) as other,
    ):
        command = ["predict", "--demo", "--target", server.target, "--store", str(other.store)]
        assert main(command) == 0

    shown = capsys.readouterr()
    assert "random[0]" in shown.out
    assert "not the version's golden inputs" in shown.err


@pytest.mark.parametrize("batch", ["1", "16"])
def test_bench_measures_rate_and_percentiles(
    capsys: pytest.CaptureFixture[str], batch: str
) -> None:
    assert main(["bench", "--seconds", "0.2", "--threads", "2", "--batch", batch, "--json"]) == 0

    figures = json.loads(capsys.readouterr().out)
    assert figures["calls_per_second"] > 0
    assert figures["rows_per_second"] == pytest.approx(int(batch) * figures["calls_per_second"])
    assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]


def test_bench_is_readable_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "0.1", "--threads", "1"]) == 0
    assert "calls/s" in capsys.readouterr().out


def test_ctrl_c_ends_bench_with_130_and_what_was_measured(scripted: StartScripted) -> None:
    called = threading.Event()

    def note(number: int, _: object) -> None:
        if number > 20:  # 0 is before the threads, and of their first calls none may have ended
            called.set()

    server = scripted(note)
    command = [*COMMAND, "bench", "--seconds", "30", "--target", server.target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert called.wait(20)
        os.kill(process.pid, signal.SIGINT)

        output, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) == (130, b"")
    assert re.search(rb"8 threads, 1 rows a call, interrupted after .* s\n.* calls/s", output)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["models", "--timeout", "soon"], "--timeout: invalid value 'soon': expected a number"),
        (["models", "--target", "gateway:x"], "'gateway:x' has port 'x'"),
        (["predict"], "expected files (- for stdin), or --demo"),
        (["bench", "--threads", "1.5"], "expected an integer from 1 to 1024"),
        (["health", "--targ", "gateway"], "--targ"),
    ],
)
def test_wrong_usage_is_one_line_with_the_way_to_help(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert "--help" in line
    assert not re.search(r"MLPSERVE_|[a-z]\(\)|token=|_between", line)


def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPSERVE_TIMEOUT", "soon")
    assert main(["models"]) == 2
    assert "MLPSERVE_TIMEOUT: invalid timeout 'soon'" in capsys.readouterr().err


def test_rows_of_the_demo_can_be_chosen_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--demo", "--json", "--index", "0:2"]) == 0
    assert len(labels_in(capsys.readouterr().out)) == 2

    assert main(["predict", "--demo", "--index", "5"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("command", [["predict", "--demo"], ["models"], ["model"]])
def test_any_encoding_of_the_output_will_do(command: list[str], encoding: str) -> None:
    names = [f"七{number}" for number in range(10)]
    with serve(class_names=names) as server:
        own = {"MLPSERVE_TARGET": server.target, "MLPSERVE_STORE": str(server.store)}
        environment = os.environ | own | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(
            [*COMMAND, *command], env=environment, capture_output=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode(encoding)


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
@pytest.mark.parametrize("command", ["models", "predict --demo"])
def test_output_that_cannot_be_written_is_one_line(command: str, output: str) -> None:
    line = f"exec {' '.join(COMMAND)} {command} {output}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, check=False)

    (error,) = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert "cannot write the output" in error


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"\x1b[2J{number}\x07" for number in range(10)]
    with serve(class_names=names) as server:
        for command in (["predict", "--demo"], ["model"], ["predict", "--demo", "--json"]):
            assert main([*command, "--target", server.target]) == 0
    text = capsys.readouterr().out
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_grpcs_log_stays_out_of_the_terminal(authority: Authority, server: ModelServer) -> None:
    done = run("health", "--tls-ca", str(authority.ca), "--timeout", "2")

    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert "the server may not use TLS" in line

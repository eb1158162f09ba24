"""The server's settings: what is wrong is said before anything starts."""

from importlib.metadata import version

import pytest

from mlpserve_model.process.cpus import usable_cores
from mlpserve_server.settings import default_max_bytes, read_settings
from mlpserve_server.transport.services import COPIES, max_request_bytes


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:0", "0.0.0.0:50051", "localhost:50051", "[::]:50051", "[fe80::1%eth0]:1",
        "unix:/run/mlpserve.sock", "my-host.example:65535",
    ],
)  # fmt: skip
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert read_settings(["--listen", address, "--allow-plaintext"]).listen == (address,)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:1",
        "[::]:1",
        "10.0.0.1:1",
        "my-host.example:1",
        "localhost.example:1",
        "[fe80::1%eth0]:1",
    ],
)
def test_what_other_machines_may_reach_wants_tls_or_a_flag(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = ["--listen", f"127.0.0.1:0,{address}"]
    with pytest.raises(SystemExit) as end:
        read_settings(listen)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert f"other machines may reach {address}" in message
    assert "--tls-cert" in message
    assert "--allow-plaintext" in message
    read_settings([*listen, "--allow-plaintext"])
    read_settings([*listen, "--tls-cert", "a", "--tls-key", "b"])


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/run/mlpserve.sock"]
)
def test_what_stays_on_this_machine_needs_no_tls(address: str) -> None:
    assert not read_settings(["--listen", address]).allow_plaintext


def test_the_variable_of_the_flag_allows_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPSERVE_ALLOW_PLAINTEXT", "1")
    assert read_settings(["--listen", "0.0.0.0:50051"]).allow_plaintext


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tls-cert", "a"],
        ["--tls-key", "b"],
        ["--tls-client-ca", "c"],
        ["--tls-client-ca", "c", "--tls-key", "b"],
    ],
)
def test_half_of_what_tls_needs_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(arguments)
    assert end.value.code == 2
    assert "--tls-key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        "50051", ":50051", "a..b:1", "::1:50051", "localhost", "localhost:", "localhost:http",
        "localhost:65536", f"{'x' * 64}.example:1", "unix:", ",",
    ],
)  # fmt: skip
def test_what_is_no_address_ends_with_2_and_says_what_is_expected(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(["--listen", f"127.0.0.1:0,{address}" if address != "," else address])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert "argument --listen: " in message
    assert "host:port" in message or "no address" in message


def test_the_workers_are_the_usable_cores_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings([]).workers == usable_cores() >= 1
    monkeypatch.setenv("MLPSERVE_WORKERS", "3")
    assert read_settings([]).workers == 3


def test_a_worker_is_made_by_its_parent_and_not_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLPSERVE_WORKER", "2")
    assert read_settings([]).worker == 0


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mlpserve-server {version('mlpserve')}\n"


@pytest.mark.parametrize(
    ("gibibytes", "workers"), [(0.5, 1), (0.5, 2), (2, 1), (2, 2), (4, 2), (16, 8)]
)
def test_what_requests_may_take_fits_the_memory_beside_the_workers_themselves(
    gibibytes: float, workers: int
) -> None:
    """These are containers that the documents name; 2 GiB and two workers are compose's."""
    memory = int(gibibytes * 2**30)
    process = 64 * 2**20  # measured, with a small model
    uncounted = 1 / 4  # of the budget, before calls are given up for it; as much again meanwhile
    budget = default_max_bytes(memory, workers)
    assert workers * (process + budget * (1 + 2 * uncounted)) < memory
    assert budget >= COPIES * max_request_bytes(budget)


def test_the_version_that_answers_can_be_chosen_for_each_model() -> None:
    served = ["--model", "digits,shop-*"]
    chosen = read_settings([*served, "--serve", "latest, digits=3,shop-7=canary"]).serve
    assert [chosen.of(name) for name in ("digits", "shop-7", "shop-8")] == ["3", "canary", "latest"]
    chosen = read_settings([*served, "--serve", "digits=3"]).serve
    assert [chosen.of(name) for name in ("digits", "shop-8")] == ["3", "champion"]
    assert read_settings(["--serve", "7"]).serve.of("mnist") == "7"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("letters=3", "--serve letters is not among --model digits,shop-*"),
        ("digits=3,digits=4", "model digits has two versions"),
        ("champion,latest", "expected one version for all models"),
        ("digits=0", "'0' is neither a version number"),
        ("digits=", "'' is neither a version number"),
        ("=3", "the model name ''"),
        ("shop-*=3", "the model name 'shop-*'"),
        (",", "',' is neither a version number"),
    ],
)
def test_a_choice_that_no_model_can_have_ends_with_2(
    chosen: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(["--model", "digits,shop-*", "--serve", chosen])
    assert end.value.code == 2
    assert expected in capsys.readouterr().err

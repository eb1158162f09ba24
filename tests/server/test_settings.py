"""The server's settings: what is wrong is said before anything starts."""

import math

import pytest

from mlpserve_server.cpus import quota, usable_cores
from mlpserve_server.settings import read_settings


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:0", "0.0.0.0:50051", "localhost:50051", "[::]:50051", "[fe80::1%eth0]:1",
        "unix:/run/mlpserve.sock", "my-host.example:65535",
    ],
)  # fmt: skip
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert read_settings(["--listen", address]).listen == (address,)


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


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2), ("150000 100000\n", 1.5), ("50000 100000\n", 0.5),
        ("max 100000\n", math.inf), ("-1\n 100000\n", math.inf), ("400000\n 100000\n", 4),
        ("", math.inf), ("200000 0", math.inf),
    ],
)  # fmt: skip
def test_a_quota_of_cgroups_is_read_as_cores(text: str, cores: float) -> None:
    assert quota(text) == cores


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

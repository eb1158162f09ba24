"""Three replicas on one store, behind a network that can fail."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlpserve_client import Tls
from mlpserve_model import Store
from tests.faults.history.publisher import Publisher
from tests.faults.history.replicas import Replica
from tests.faults.history.system import System
from tests.support.authority import Authority
from tests.support.object_store import Proxy, address, moto, proxy
from tests.support.places import BucketPlace, FolderPlace
from tests.support.tcp_proxy import Network

__all__ = ["address", "moto", "proxy"]

_POLL_SECONDS = 1.0  # the default of servers
# A poll that finds a new version makes about ten requests, and the stand-in of the object store, a
# Python program, takes a tenth of a second for each where other programs use the cores.
_BUCKET_SECONDS = 1.0
MODEL = "mnist"
_WORKERS = (1, 2, 1)
_WITH_CLOCK = 2
_VOLUME = "8m"
_MAX_BATCH = "5"  # rows, so that a batch of all inputs takes several requests

# Makes a system with servers of this command.
MakeSystem = Callable[[list[str]], System]


@pytest.fixture
def tls(authority: Authority) -> Tls:
    """How clients connect: what a bad network flips, TLS notices."""
    return Tls(ca=authority.ca, server_name="localhost")


@pytest.fixture
def network() -> Iterator[Network]:
    """The network of a test."""
    with Network() as network:
        yield network


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A folder on a volume of its own, where one can be made; else an ordinary one."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={_VOLUME}", "none", folder]
    mounted = os.geteuid() == 0 and _run(*mount)
    yield folder
    if mounted:
        assert _run("umount", folder)


def _run(*command: str | Path) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def replicas(
    tmp_path: Path, authority: Authority, tls: Tls
) -> Iterator[Callable[..., list[Replica]]]:
    """Make three servers: one of two workers, one with a clock of its own."""
    cert, key = authority.issue(days=30)
    made: list[Replica] = []

    def make(store: str, environments: list[dict[str, str]], command: list[str]) -> list[Replica]:
        flags = ["--store", store, "--poll-seconds", str(_POLL_SECONDS), "--max-batch", _MAX_BATCH]
        flags += ["--tls-cert", str(cert), "--tls-key", str(key)]
        for number, workers in enumerate(_WORKERS):
            made.append(
                Replica(
                    number,
                    [*command, *flags],
                    environment=environments[number],
                    tls=tls,
                    log=tmp_path / f"replica-{number}.log",
                    workers=workers,
                    cache=tmp_path / f"cache-{number}",
                )
            )
        return made

    yield make
    for replica in made:
        replica.stop()


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[int, Path], dict[str, str]]:
    """A clock that can be set: the file that says how, by replica, and the environment."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not found:
        return {}, {}
    file = tmp_path / "clock"
    file.write_text("+0")
    return {_WITH_CLOCK: file}, {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.fixture
def on_folder(
    volume: Path,
    replicas: Callable[..., list[Replica]],
    network: Network,
    clock: tuple[dict[int, Path], dict[str, str]],
) -> MakeSystem:
    """Make a system on a volume."""

    def make(command: list[str]) -> System:
        root = volume / "models"
        made = replicas(str(root), [{}, {}, clock[1]], command)
        return System(
            replicas=made,
            ways=[network.way(replica.port) for replica in made],
            publisher=Publisher(Store(root, MODEL)),
            place=FolderPlace(root / MODEL),
            due_seconds=2 * _POLL_SECONDS,
            volume=volume if volume.is_mount() else None,
            clocks=clock[0],
        )

    return make


@pytest.fixture
def on_bucket(
    address: str,
    moto: int,
    proxy: Proxy,
    replicas: Callable[..., list[Replica]],
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    clock: tuple[dict[int, Path], dict[str, str]],
) -> MakeSystem:
    """Make a system on an object store; each replica and the publisher has its own way to it."""

    def make(command: list[str]) -> System:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        ways = [network.way(proxy.server_address[1]) for _ in range(len(_WORKERS) + 1)]
        doors = [{"AWS_ENDPOINT_URL": f"http://{way.door().address}"} for way in ways]
        made = replicas(address, [doors[0], doors[1], {**doors[2], **clock[1]}], command)
        monkeypatch.setenv("AWS_ENDPOINT_URL", doors[-1]["AWS_ENDPOINT_URL"])
        return System(
            replicas=made,
            ways=[network.way(replica.port) for replica in made],
            publisher=Publisher(Store(address, MODEL)),
            place=BucketPlace(f"http://127.0.0.1:{moto}", bucket, f"{prefix}/{MODEL}"),
            due_seconds=2 * (_POLL_SECONDS + _BUCKET_SECONDS),
            bucket_ways=ways,
            clocks=clock[0],
        )

    return make

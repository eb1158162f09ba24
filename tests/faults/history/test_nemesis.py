"""What the nemesis plans, and the network that it harms."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.faults.history.nemesis import plan
from tests.faults.history.replica_faults import REPLICA_FAULTS
from tests.faults.history.store_faults import STORE_FAULTS
from tests.support.tcp_proxy import Network, Way

NAMES = [kind.name for kind in [*REPLICA_FAULTS, *STORE_FAULTS]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_minutes_have_two_hundred_faults_of_every_kind_and_the_seed_decides_which(
    seed: int,
) -> None:
    steps = plan(seed, 600.0, 2.8, NAMES)
    assert len(steps) >= 200
    assert {step.kind for step in steps[: len(NAMES)]} == {*NAMES}
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert steps == plan(seed, 600.0, 2.8, NAMES)
    assert steps != plan(seed + 1, 600.0, 2.8, NAMES)


@pytest.fixture
def way() -> Iterator[Way]:
    """A way to a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server, Network() as network:
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        yield network.way(server.getsockname()[1])


def echo(server: socket.socket) -> None:
    """Send every connection's first bytes back."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with closing(connection), suppress(ConnectionResetError):
            connection.sendall(connection.recv(100))
            connection.recv(100)


def answer(way: Way) -> bytes:
    """Return what comes back, nothing if the connection breaks."""
    door = way.door()
    try:
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
            connection.sendall(b"hello")
            return connection.recv(100)
    except OSError:
        return b""


def test_a_way_carries_damages_and_refuses(way: Way) -> None:
    assert answer(way) == b"hello"
    way.to_server = way.to_client = lambda data: data + b"!"
    assert answer(way) == b"hello!!"
    way.closed = True
    assert answer(way) == b""


def test_a_way_that_holds_carries_on_afterwards_and_one_that_is_cut_does_not(way: Way) -> None:
    way.held = True
    with socket.create_connection(("127.0.0.1", way.door().port), timeout=10) as connection:
        connection.sendall(b"hello")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        way.held = False
        connection.settimeout(10)
        assert connection.recv(100) == b"hello"
        way.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)

"""Nobody there, nothing to serve, too slow, closed: each is told apart."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import (
    Client,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineError,
    NotReadyError,
    SettingsError,
    _batches,
)
from mlpserve_client.testing import ModelServer
from mlpserve_server.server import Server
from tests.support.client import Connect, StartScripted, StartServer

IMAGE = np.zeros((28, 28), dtype=np.uint8)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is taken, so that nobody else listens there either."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield address_of(taken)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are accepted and nothing is ever said."""
    with listener() as mute:
        yield address_of(mute)


def listener() -> socket.socket:
    mute = socket.socket()
    mute.bind(("127.0.0.1", 0))
    mute.listen()
    return mute


def address_of(taken: socket.socket) -> str:
    return f"127.0.0.1:{taken.getsockname()[1]}"


def connections(mute: socket.socket) -> int:
    """Count the connections that were made to a listener that accepted none."""
    mute.settimeout(0.1)
    made: list[socket.socket] = []
    with ExitStack() as stack, suppress(TimeoutError):
        while True:
            made.append(stack.enter_context(mute.accept()[0]))
    return len(made)


def publish(server: Server) -> None:
    store = Path(str(server.settings.store))
    ModelServer(server.address, store, (28, 28), "0123456789").publish()


def test_nobody_listening_is_a_connection_error_that_names_the_target(
    connect: Connect, nobody: str
) -> None:
    with pytest.raises(ConnectionFailedError, match=f"{nobody}.*refused") as caught:
        connect(nobody).predict(IMAGE, timeout=0.3)

    assert caught.value.target == nobody


def test_a_name_without_an_address_is_a_connection_error(connect: Connect) -> None:
    with pytest.raises(ConnectionFailedError, match=r"nosuchhost\.invalid"):
        connect("nosuchhost.invalid:1").predict(IMAGE, timeout=0.3)


def test_a_server_that_says_nothing_is_a_connection_error(connect: Connect, silent: str) -> None:
    with pytest.raises(ConnectionFailedError, match=silent):
        connect(silent).predict(IMAGE, timeout=0.3)


def test_late_calls_share_one_look_at_why(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_client._diagnosis._INTERVAL", 60)
    with listener() as mute:
        client = connect(address_of(mute))

        for _ in range(5):
            with pytest.raises(ConnectionFailedError, match="does not answer"):
                client.predict(IMAGE, timeout=0.05)

        assert connections(mute) == 2  # the calls' and the look's


def test_threads_whose_calls_are_late_together_share_one_look(silent: str) -> None:
    with Client(silent) as client, ThreadPoolExecutor(8) as pool:
        late = [pool.submit(client.predict, IMAGE, timeout=0.1) for _ in range(8)]

        errors = [call.exception() for call in late]

    assert {type(error) for error in errors} == {ConnectionFailedError}
    assert len({id(error) for error in errors}) == 8  # each caller has its own traceback


def test_two_clients_of_one_address_have_a_connection_each(
    connect: Connect, scripted: StartScripted
) -> None:
    peers: set[str] = set()
    server = scripted(lambda _, context: peers.add(context.peer()))
    clients = [connect(server.target) for _ in range(2)]

    for client in clients * 2:
        client.predict([0.0, 1.0])

    assert len(peers) == 2


@pytest.mark.usefixtures("patient")
def test_a_server_without_a_model_is_not_ready(connect: Connect, start: StartServer) -> None:
    client = connect(start().address)

    with pytest.raises(NotReadyError, match="alive but not ready"):
        client.predict(IMAGE, timeout=0.3)
    assert client.health() is False
    assert client.health(live=True) is True


def test_health_of_nobody_is_an_error(connect: Connect, nobody: str) -> None:
    with pytest.raises(ConnectionFailedError, match=nobody):
        connect(nobody).health(timeout=1)


@pytest.mark.usefixtures("patient")
def test_waiting_ends_when_a_model_appears(connect: Connect, start: StartServer) -> None:
    server = start()
    client = connect(server.address)
    with pytest.raises(NotReadyError):
        client.wait_until_ready(0.2)

    publish(server)
    client.wait_until_ready(10)

    assert client.predict(IMAGE).model.version == 1


def test_waiting_for_nobody_ends_in_time(connect: Connect, nobody: str) -> None:
    started = time.monotonic()

    with pytest.raises(ConnectionFailedError):
        connect(nobody).wait_until_ready(0.3)

    assert time.monotonic() - started >= 0.3


@pytest.mark.usefixtures("patient")
def test_a_call_waits_for_a_model_within_its_deadline(connect: Connect, start: StartServer) -> None:
    server = start()
    client = connect(server.address)
    with pytest.raises(NotReadyError):
        client.predict(IMAGE, timeout=0.1)

    publish(server)

    assert client.predict(IMAGE, timeout=10).model.version == 1


@pytest.mark.usefixtures("patient")
def test_an_answer_that_comes_too_late_is_a_deadline_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batches, "_REQUEST_BYTES", 8192 * 784)

    with pytest.raises(DeadlineError, match="longer timeout"):
        client.predict_batch(np.zeros((8192, 784), dtype=np.uint8), timeout=0.002)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e300, "1"])
def test_a_timeout_that_makes_no_sense_is_refused(client: Client, timeout: Any) -> None:
    with pytest.raises(SettingsError):
        client.predict(IMAGE, timeout=timeout)


def test_a_closed_client_says_so(connect: Connect, server: ModelServer) -> None:
    client = connect(server.target)
    client.predict(IMAGE)
    client.close()
    client.close()

    for call in (
        lambda: client.predict(IMAGE),
        lambda: client.predict_batch(IMAGE[np.newaxis]),
        lambda: list(client.predict_stream([IMAGE])),
        client.model,
        client.models,
        client.health,
    ):
        with pytest.raises(ClientClosedError, match="closed"):
            call()


def test_closing_ends_the_calls_of_other_threads(server: ModelServer) -> None:
    client = Client(server.target)
    client.predict(IMAGE)
    ends: list[BaseException] = []

    def work(call: Callable[[], object]) -> None:
        try:
            while True:
                call()
        except Exception as error:
            ends.append(error)

    calls = [lambda: client.predict(IMAGE), lambda: client.predict_batch([IMAGE] * 2000)] * 4
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    client.close()
    for thread in threads:
        thread.join()

    assert {type(end) for end in ends} == {ClientClosedError}


def test_models_are_described_newest_first(client: Client) -> None:
    (model,) = client.versions()

    assert model == client.model() == client.model(version=1) == client.model(alias="champion")
    assert (model.version, model.state, model.aliases) == (1, "ACTIVE", ("champion",))
    assert model.input_shape == (28, 28)
    assert model.class_names == tuple("0123456789")
    assert abs(model.created.timestamp() - time.time()) < 600


def test_every_page_of_models_is_fetched(connect: Connect, start: StartServer) -> None:
    server = start()
    for _ in range(53):  # a page has 50
        publish(server)
    client = connect(server.address)
    client.wait_until_ready()

    assert [model.version for model in client.versions()] == list(range(53, 0, -1))


def test_unix_sockets_are_targets(connect: Connect, start: StartServer, tmp_path: Path) -> None:
    first, second = start(f"unix:{tmp_path / 'a'}"), start(f"unix:{tmp_path / 'b'}")
    publish(first)

    assert connect(first.address).predict(IMAGE).model.version == 1
    client = connect([first.address, second.address])
    assert client.predict(IMAGE).model.version == 1
    first.stop()
    assert client.predict(IMAGE).model.version == 1


def test_where_nothing_listens_the_error_says_what_starts_a_server(connect: Connect) -> None:
    with pytest.raises(ConnectionFailedError, match="nothing listens there: `mlpserve serve`"):
        connect("127.0.0.1:1").health(timeout=5)

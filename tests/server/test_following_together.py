"""Workers follow the store by the polls of their supervisor, and without them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from mlpserve_client import Client, MlpserveError
from mlpserve_model import Store
from tests.support.publishing import publish_to
from tests.support.server import Process, Run
from tests.support.waiting import eventually

ROW = [[0.0] * 4] * 3
Answering = Callable[[str], set[int]]


@pytest.fixture
def transport() -> str:
    """Which version answers is decided before a transport carries the answer."""
    return "auto"


@pytest.fixture
def server(run: Run, store: Store) -> Process:
    """Two workers that serve whatever there is."""
    publish_to(Store(store.folder.parent, "a"))
    return run("--workers", "2", "--model", "*", "--drain-seconds", "0")


@pytest.fixture
def answering(server: Process) -> Iterator[Answering]:
    """The versions that answer, on connections of which each worker has some; 0 for none."""
    address = server.event("listening")["address"]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address, timeout=20)) for _ in range(12)]

        def version(client: Client, model: str) -> int:
            try:
                return client.predict(ROW, model=model).model.version
            except MlpserveError:
                return 0

        yield lambda model: {version(client, model) for client in clients}


def test_two_workers_follow_the_store_also_while_their_supervisor_is_stopped(
    server: Process, answering: Answering, store: Store
) -> None:
    root = store.folder.parent
    a = Store(root, "a")
    eventually(lambda: answering("a") == {1})
    publish_to(a, seed=1)
    eventually(lambda: answering("a") == {2})
    a.move_alias("champion", 1, expected=2, event="rollback", reason="test")
    eventually(lambda: answering("a") == {1})
    b = publish_to(Store(root, "b"))
    eventually(lambda: answering("b") == {b})
    away = root.rename(root.with_name("away"))
    assert answering("a") == {1}
    away.rename(root)
    publish_to(a, seed=2)
    eventually(lambda: answering("a") == {3})

    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        publish_to(a, seed=3)
        eventually(lambda: answering("a") == {4})
        publish_to(Store(root, "c"))
        eventually(lambda: answering("c") == {1})
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    publish_to(a, seed=4)
    eventually(lambda: answering("a") == {5})
    assert server.end() == 0

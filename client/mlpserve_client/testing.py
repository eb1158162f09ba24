"""A real server with a tiny model, for tests of code that calls one: no mocks needed.

As a context manager:

    from mlpserve_client import Client
    from mlpserve_client.testing import serve

    with serve() as server, Client(server.target) as client:
        print(client.predict([[0] * 28] * 28).name)

As a pytest fixture, one server for the whole run: put
`pytest_plugins = ["mlpserve_client.testing"]` into the topmost conftest.py, then

    def test_my_code(mlpserve_server):
        assert my_code(mlpserve_server.target) == ...

The server runs in the same process on a free port and needs the `server` extra:
`pip install '.[server]'` in a checkout.
"""

import math
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlpserve_model import Draft

__all__ = ["ModelServer", "serve"]

DIGITS = tuple("0123456789")


class ModelServer:
    """A running server and its store.

    Attributes:
        target: its address, for `Client`.
        store: the folder of the store, for `--store` of the other commands.
        feedback: the folder where it keeps reports, if it takes any.

    """

    def __init__(
        self,
        target: str,
        store: Path,
        input_shape: Sequence[int],
        class_names: Sequence[str],
        feedback: Path | None = None,
    ) -> None:
        self.target = target
        self.store = store
        self.feedback = feedback
        self._input_shape = tuple(input_shape)
        self._class_names = tuple(class_names)

    def publish(self) -> int:
        """Publish another version, make it champion and return its number.

        Its weights are random, but the same for the same number. The server loads it within a
        fraction of a second; until then the previous version answers.
        """
        from mlpserve_model import CHAMPION, Store, Verdict, initialise

        store = Store(self.store, "mnist")
        draft = _draft(self._input_shape, self._class_names)
        rng = np.random.default_rng(len(store.versions()) + 1)
        golden = rng.random((4, draft.network.inputs), dtype=np.float32)
        version = store.publish(
            draft, Verdict("PROMOTED"), initialise(draft.network, rng), golden
        ).version
        store.move_alias(
            CHAMPION,
            version,
            expected=store.aliases().get(CHAMPION),
            event="promote",
            reason="for a test",
        )
        return version


@contextmanager
def serve(
    *, input_shape: Sequence[int] = (28, 28), class_names: Sequence[str] = DIGITS
) -> Iterator[ModelServer]:
    """Start a server with version 1 of a tiny model on a free port; stop it at the end.

    Raw values are 0 to 255, as for MNIST. The server gives receipts and takes reports.

    Args:
        input_shape: shape of one instance.
        class_names: names of the labels 0, 1, ...

    Raises:
        ImportError: the `server` extra is not installed.

    """
    try:
        from mlpserve_server.server import Server
        from mlpserve_server.settings import Settings
    except ImportError as error:
        raise ImportError(
            "mlpserve_client.testing needs the extra `server`: pip install '.[server]'"
        ) from error
    from mlpserve_client._sync import Client

    with tempfile.TemporaryDirectory() as folder:
        store, feedback, keys = (Path(folder) / name for name in ("store", "feedback", "keys"))
        keys.touch(mode=0o600)
        keys.write_text(secrets.token_urlsafe(32))
        settings = Settings(
            store=store,
            listen=("127.0.0.1:0",),
            poll_seconds=0.02,
            drain_seconds=0,
            receipt_keys=keys,
            feedback=feedback,
        )
        with Server(settings) as running:
            server = ModelServer(running.address, store, input_shape, class_names, feedback)
            server.publish()
            with Client(server.target) as client:
                client.wait_until_ready(30)
            yield server


def _draft(input_shape: tuple[int, ...], class_names: tuple[str, ...]) -> "Draft":
    from mlpserve_model import DatasetInfo, Draft, Network, Signature

    return Draft(
        model="mnist",
        network=Network((math.prod(input_shape), 8, len(class_names))),
        signature=Signature(input_shape, 255, class_names),
        dataset=DatasetInfo("none", "sha256:" + "0" * 64, "none"),
        recipe={"name": "random weights for a test"},
        seed=0,
        libraries={},
        metrics={},
    )


try:
    import pytest
except ImportError:
    pass  # the context manager works without
else:

    @pytest.fixture(scope="session", name="mlpserve_server")
    def _mlpserve_server() -> Iterator[ModelServer]:
        """Serve a tiny model, the same for the whole run."""
        with serve() as server:
            yield server

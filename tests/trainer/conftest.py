"""What the trainer's tests share: real MNIST where it is, tiny data, and a stand-in for OpenML."""

import gzip
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_model import Store
from mlpserve_trainer.datasets import Dataset

Bytes = npt.NDArray[np.uint8]
OpenML = Callable[[Bytes, Bytes], dict[str, bytes]]

DEFAULT_MNIST = Path(__file__).parents[3] / "shared/data/mnist"
# Flags of a training that takes a moment and is good enough to be promoted.
FAST = ("--dataset", "digits", "--hidden", "32", "--epochs", "8", "--batch-size", "16")
MNIST = Path(os.environ.get("MLPSERVE_DATA_DIR", DEFAULT_MNIST))


@pytest.fixture
def mnist_dir() -> Path:
    if not (MNIST / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"no MNIST files in {MNIST}; set MLPSERVE_DATA_DIR")
    return MNIST


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("MLPSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLPSERVE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MLPSERVE_STORE", str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _no_figures(no_figures: None) -> None:
    """Draw none, unless the tests are about them."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store that trainings publish to."""
    return Store(tmp_path / "store", "mnist")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command sets up logging for its process; here it is one of many."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stripes() -> Dataset:
    """300 noisy 4×4 images of three classes: which third of the image is bright."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    inputs = rng.integers(0, 100, (300, 16), dtype=np.uint8)
    for row, label in enumerate(labels):
        inputs[row, label * 5 : label * 5 + 5] += 120
    return Dataset("stripes", inputs.reshape(300, 4, 4), labels, ("a", "b", "c"), 255)


@pytest.fixture
def openml(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenML]:
    """Serve images and labels as OpenML serves mnist_784; gives its answers by path."""
    with _openml_server() as (server, address):

        def serve(images: Bytes, labels: Bytes) -> dict[str, bytes]:
            server.answers = _answers(address, images, labels)
            point_at(monkeypatch, address)
            return server.answers

        yield serve


def point_at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Make scikit-learn ask this address; it has no setting for it."""
    from sklearn.datasets import _openml

    for name in ("_SEARCH_NAME", "_DATA_INFO", "_DATA_FEATURES", "_DATA_QUALITIES"):
        path = getattr(_openml, name).removeprefix("https://www.openml.org")
        monkeypatch.setattr(_openml, name, address + path)
    monkeypatch.setattr("mlpserve_trainer.datasets.openml.ADDRESS", address)


@pytest.fixture
def no_openml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenML be out of reach: nothing listens on port 9 of this machine."""
    point_at(monkeypatch, "http://127.0.0.1:9")


class _Server(ThreadingHTTPServer):
    answers: dict[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self.server.answers.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _openml_server() -> Iterator[tuple[_Server, str]]:
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answers(address: str, images: Bytes, labels: Bytes) -> dict[str, bytes]:
    names = [f"pixel{i + 1}" for i in range(images.shape[1])]
    arff = _arff(names, images, labels)
    file = "/data/v1/download/52667/mnist_784.arff"
    found = {"did": 554, "name": "mnist_784", "version": 1, "status": "active"}
    description = {
        "id": "554",
        "name": "mnist_784",
        "version": "1",
        "format": "ARFF",
        "status": "active",
        "url": address + file,
        "md5_checksum": hashlib.md5(arff).hexdigest(),
        "description": "The MNIST database of handwritten digits",
    }
    features = [
        {
            "index": str(index),
            "name": name,
            "data_type": "nominal" if name == "class" else "numeric",
            "is_target": str(name == "class").lower(),
            "is_ignore": "false",
            "is_row_identifier": "false",
            "number_of_missing_values": "0",
        }
        for index, name in enumerate([*names, "class"])
    ]
    quality = [{"name": "NumberOfInstances", "value": str(float(len(images)))}]
    api = "/api/v1/json/data"
    documents = {
        f"{api}/list/data_name/mnist_784/limit/2/data_version/1": {"data": {"dataset": [found]}},
        f"{api}/554": {"data_set_description": description},
        f"{api}/features/554": {"data_features": {"feature": features}},
        f"{api}/qualities/554": {"data_qualities": {"quality": quality}},
    }
    answers = {path: json.dumps(value).encode() for path, value in documents.items()}
    return {path: gzip.compress(body, 1) for path, body in (answers | {file: arff}).items()}


def _arff(names: list[str], images: Bytes, labels: Bytes) -> bytes:
    numbers = [str(value) for value in range(256)]
    header = ["@RELATION mnist_784", *(f"@ATTRIBUTE {name} real" for name in names)]
    header += ["@ATTRIBUTE class {0,1,2,3,4,5,6,7,8,9}", "@DATA"]
    rows = (
        ",".join([*(numbers[value] for value in image), str(label)])
        for image, label in zip(images.tolist(), labels.tolist(), strict=True)
    )
    return "\n".join([*header, *rows, ""]).encode()

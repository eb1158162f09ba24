"""What servers that give receipts and take reports are tested with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import scale_pixels
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from tests.support.server import Serve, Stubs
from tests.support.waiting import eventually

KEY, NEXT = "k" * 32, "n" * 32


class WriteKeys(Protocol):
    """Writes the file of keys as an operator does: beside it, and then into its place."""

    def __call__(self, *keys: str) -> Path: ...


@pytest.fixture
def write_keys(tmp_path: Path) -> WriteKeys:
    def write(*keys: str) -> Path:
        new = tmp_path / "new keys"
        new.write_text("\n".join(keys))
        new.chmod(0o600)
        return new.replace(tmp_path / "keys")

    return write


PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
SCALED = scale_pixels(PIXELS, 16)
NAMES = ("circle", "square", "star")


def tensor(x: Any) -> pb.Tensor:
    dtype = pb.DATA_TYPE_UINT8 if x.dtype == np.uint8 else pb.DATA_TYPE_FLOAT32
    return pb.Tensor(dtype=dtype, shape=x.shape, data=x.tobytes())


def answered(stubs: Stubs, x: Any = PIXELS) -> pb.PredictResponse:
    """An answer with its receipt."""
    request = pb.PredictRequest(instance=tensor(x), receipt=True)
    response: pb.PredictResponse = stubs.prediction.Predict(request)
    return response


def receipts(stubs: Stubs, rows: int) -> list[bytes]:
    x = np.random.default_rng(0).random((rows, 12), dtype=np.float32)
    request = pb.BatchPredictRequest(instances=tensor(x), receipts=True)
    return list(stubs.prediction.BatchPredict(request).receipts)


def request(*reports: fb.Report) -> fb.ReportRequest:
    return fb.ReportRequest(reports=reports)


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


@pytest.fixture
def start(serve: Serve, write_keys: WriteKeys, tmp_path: Path) -> Callable[..., Stubs]:
    """Start a server that gives receipts and takes reports."""

    def start(**settings: Any) -> Stubs:
        keys = tmp_path / "keys"
        defaults = {
            "receipt_keys": keys if keys.exists() else write_keys(KEY),
            "feedback": tmp_path / "feedback",
        }
        stubs = serve(**(defaults | settings))
        eventually(stubs.serving)
        return stubs

    return start


def kept(place: FeedbackPlace) -> list[ReportRecord]:
    """All reports; fails for a damaged one."""

    def damaged(name: str, reason: str) -> None:
        raise AssertionError(f"{name}: {reason}")

    return list(place.reports("mnist", damaged=damaged))

"""What callers send, and the server's own settings and credentials."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2, prediction_pb2
from mlpserve_model import (
    CHAMPION,
    Store,
)
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.receipts import ReceiptKeys
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.feedback import FeedbackDesk
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.oip_catalog import OpenCatalog
from mlpserve_server.dataplane.predictions import DataPlane, Outcome, complete
from mlpserve_server.dataplane.query import Result
from mlpserve_server.errors import ServingError
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.observability.observer import CallInfo, Observer
from mlpserve_server.observability.tracing import Traces
from mlpserve_server.security.certificates import Certificates, Files
from mlpserve_server.security.scope import ALL
from mlpserve_server.security.tokens import Tokens, read_tokens
from mlpserve_server.settings import read_settings
from mlpserve_server.transport.status import refusal_of
from tests.fuzz.model import as_settings
from tests.fuzz.target import scratch, split, target
from tests.support.managers import models_of
from tests.support.publishing import publish_to

RECEIPT_KEY = "a-key-of-at-least-32-characters-x"
TOKEN = "a-token-of-24-characters"
# gRPC's clients take no more than this of an answer's metadata by default.
MAX_METADATA = 8192


@target()
def predict(data: bytes) -> None:
    for answer in _alike(_data_plane().predict, data):
        if response := _response(answer):
            message = prediction_pb2.PredictResponse.FromString(response)
            _check_probabilities(message.probabilities)


@target()
def infer(data: bytes) -> None:
    for answer in _alike(_data_plane().infer, data):
        if response := _response(answer):
            inference_pb2.ModelInferResponse.FromString(response)


@target()
def batch_predict(data: bytes) -> None:
    if response := _response(
        _answer(lambda: complete(_data_plane().batch_predict(data), _yes).response)
    ):
        message = prediction_pb2.BatchPredictResponse.FromString(response)
        assert len(message.labels) == message.probabilities.shape[0]
        for row in np.frombuffer(message.probabilities.data, "<f4").reshape(-1, 3):
            _check_probabilities(row.tolist())


@target()
def explain(data: bytes) -> None:
    if response := _response(_answer(lambda: complete(_data_plane().explain(data), _yes).response)):
        message = explanation_pb2.ExplainResponse.FromString(response)
        values = np.frombuffer(message.attributions.data, "<f4").reshape(len(message.labels), -1)
        difference = np.subtract(message.scores, message.baseline_scores)
        np.testing.assert_allclose(values.sum(axis=1), difference, atol=1e-4)


@target()
def infer_in_steps(data: bytes) -> None:
    if response := _response(
        _answer(lambda: complete(_data_plane().infer_in_steps(data), _yes).response)
    ):
        inference_pb2.ModelInferResponse.FromString(response)


@target()
def get_model_version(data: bytes) -> None:
    if response := _response(_answer(lambda: _catalog().get_model_version(data))):
        model_pb2.GetModelVersionResponse.FromString(response)


@target()
def list_model_versions(data: bytes) -> None:
    if response := _response(_answer(lambda: _catalog().list_model_versions(data))):
        model_pb2.ListModelVersionsResponse.FromString(response)


@target(UnicodeDecodeError)
def page_token(data: bytes) -> None:
    request = model_pb2.ListModelVersionsRequest(page_size=1, page_token=data.decode())
    _response(_answer(lambda: _catalog().list_model_versions(request.SerializeToString())))


@target()
def model_metadata(data: bytes) -> None:
    catalog = OpenCatalog(_catalog(), lambda _: True, max_batch=16)
    if response := _response(_answer(lambda: catalog.model_metadata(data))):
        inference_pb2.ModelMetadataResponse.FromString(response)
    if response := _response(_answer(lambda: catalog.model_config(data))):
        inference_pb2.ModelConfigResponse.FromString(response)
    if response := _response(_answer(lambda: catalog.repository_index(data))):
        inference_pb2.RepositoryIndexResponse.FromString(response)
    _response(_answer(lambda: catalog.model_ready(data)))


@target()
def report(data: bytes) -> None:
    if response := _response(_answer(lambda: complete(_desk().report(data, ""), _yes).response)):
        message = feedback_pb2.ReportResponse.FromString(response)
        assert message.recorded + message.known >= 1


@target()
def metadata(data: bytes) -> None:
    lines = (line.partition(b"=") for line in data.splitlines())
    given = [(key.decode("latin-1"), _as_grpc_has_it(key, value)) for key, _, value in lines]
    call = CallInfo("/mlpserve.v1.PredictionService/Predict", given)
    scheme, _, shown = call.header("authorization").partition(" ")
    is_admitted = Tokens({TOKEN: ALL}).scope(given) is ALL
    assert is_admitted == (scheme.lower() == "bearer" and shown == TOKEN)
    assert call.request_id.isascii()
    _traces().sample(call)


@target(UnusableFile)
def tokens(data: bytes) -> None:
    read_tokens(scratch("tokens", data))


@target(UnusableFile)
def certificates(data: bytes) -> None:
    cert, key, ca = split(data, 3)
    paths = (scratch("cert.pem", cert), scratch("key.pem", key))
    Certificates(Files(*paths, scratch("ca.pem", ca) if ca else None)).credentials()


@target(UnicodeDecodeError)
def settings(data: bytes) -> None:
    with as_settings(data) as arguments:
        read_settings(arguments)


@cache
def _catalog() -> Catalog:
    store = Store(scratch("models"), "mnist")
    publish_to(store, seed=0)
    publish_to(store, seed=1, promote=False)
    manager = ModelManager(Loader(store, standby=1), CHAMPION)
    assert manager.poll()
    return Catalog(models_of(manager))


@cache
def _data_plane() -> DataPlane:
    return DataPlane(_catalog().models, 16, Inference(max_rows=32))


@cache
def _desk() -> FeedbackDesk:
    keys, place = ReceiptKeys([RECEIPT_KEY]), FeedbackPlace(scratch("feedback"))
    return FeedbackDesk(_catalog().models, lambda: keys, place, 1e6, Observer())


@cache
def _traces() -> Traces:
    return Traces(0.0)


def _yes() -> bool:
    return True


def _alike(method: Callable[[Sequence[bytes]], list[Outcome]], data: bytes) -> list[Outcome]:
    """The answers to one or several requests, which do not depend on what comes with them."""
    requests = split(data, data.count(b"\n--\n") + 1)
    together, alone = method(requests), [method([request])[0] for request in requests]
    assert [type(answer) for answer in together] == [type(answer) for answer in alone]
    return together


def _answer(call: Callable[[], bytes]) -> bytes | Exception:
    try:
        return call()
    except ServingError as error:
        return error


def _response(answer: Outcome | bytes) -> bytes | None:
    """The response; for a documented error None, once it can be sent; raises any other."""
    if isinstance(answer, Result):
        return answer.response
    if isinstance(answer, bytes):
        return answer
    if not isinstance(answer, ServingError):
        raise answer
    refusal = refusal_of(answer)
    sent = sum(len(key) + len(value) + 32 for key, value in refusal.metadata)
    # gRPC writes three characters for each byte of a message that is not printable ASCII.
    assert sent + 3 * len(refusal.details.encode()) < MAX_METADATA
    return None


def _check_probabilities(probabilities: Sequence[float]) -> None:
    assert all(0 <= p <= 1 for p in probabilities)
    assert math.isclose(sum(probabilities), 1, abs_tol=1e-5)


def _as_grpc_has_it(key: bytes, value: bytes) -> str | bytes:
    """A value of gRPC's metadata: bytes below a key that ends with -bin, else text."""
    return value if key.endswith(b"-bin") else value.decode("ascii", "ignore")

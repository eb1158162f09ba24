"""What Prometheus gets: the right figures of both transports, by labels that nobody can add to."""

import socket
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Network, Store
from mlpserve_server.observability.aggregation import MAX_MODELS, MAX_VERSIONS, WorkerAggregator
from mlpserve_server.observability.metrics import METRICS
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Run, Serve, Stubs
from tests.support.waiting import eventually

ANYWHERE = "127.0.0.1:0"


def predict_request(values: bytes = bytes(12), **selector: Any) -> pb.PredictRequest:
    instance = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=values)
    return pb.PredictRequest(instance=instance, model=model_pb2.ModelSelector(**selector))


def batch_request(values: np.ndarray[Any, np.dtype[np.uint8]]) -> pb.BatchPredictRequest:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=values.shape, data=values.tobytes())
    return pb.BatchPredictRequest(instances=tensor)


def failure(call: Callable[..., Any], request: Any, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10, **options)
    code: grpc.StatusCode = caught.value.code()
    return code


def settle(stubs: Stubs) -> None:
    """Wait until everything is shown that one prediction brings with it."""
    eventually(lambda: stubs.scrape()("mlpserve_rows_total") == 1)
    eventually(lambda: stubs.scrape()("mlpserve_model_info") == 1)


@pytest.fixture
def stubs(publish: Publish, serve: Serve) -> Stubs:
    """A ready server that shows its metrics."""
    publish()
    stubs = serve(metrics_listen=ANYWHERE)
    eventually(stubs.serving)
    return stubs


def test_calls_are_counted_by_method_and_code(stubs: Stubs) -> None:
    for _ in range(5):
        stubs.prediction.Predict(predict_request())
    stubs.models.GetModelVersion(model_pb2.GetModelVersionRequest())
    failure(stubs.prediction.Predict, predict_request(bytes(11)))
    failure(stubs.prediction.Predict, predict_request(alias="nobody"))
    failure(stubs.channel.unary_unary("/mlpserve.v1.PredictionService/Strange"), b"")
    failure(stubs.channel.unary_unary("/elsewhere/Predict"), b"")
    calls = "mlpserve_calls_total"
    eventually(lambda: stubs.scrape()(calls) == 10)
    page = stubs.scrape()
    assert page(calls, method="Predict", code="OK") == 5
    assert page(calls, method="GetModelVersion", code="OK") == 1
    assert page(calls, method="Predict", code="INVALID_ARGUMENT") == 1
    assert page(calls, method="Predict", code="NOT_FOUND") == 1
    assert page(calls, method="other", code="UNIMPLEMENTED") == 2
    assert page("mlpserve_call_seconds_count", method="Predict") == 7
    assert 0 < page("mlpserve_call_seconds_sum", method="Predict") < 7 * 10


def test_the_time_of_a_call_lies_in_its_bucket(stubs: Stubs, store: Store) -> None:
    stubs.prediction.Predict(predict_request())
    eventually(lambda: stubs.scrape()("mlpserve_call_seconds_count") == 1)
    page = stubs.scrape()
    seconds = page("mlpserve_call_seconds_sum")
    for labels in page.labels("mlpserve_call_seconds_bucket"):
        if labels["method"] == "Predict":
            count = page("mlpserve_call_seconds_bucket", **labels)
            assert count == (seconds <= float(labels["le"]))


def test_rows_are_counted_by_version_class_and_confidence(stubs: Stubs, publish: Publish) -> None:
    second = publish(seed=1, promote=False)
    values = np.random.default_rng(0).integers(0, 17, (1500, 12), np.uint8)
    answer = stubs.prediction.BatchPredict(batch_request(values))
    probabilities = np.frombuffer(answer.probabilities.data, "<f4").reshape(1500, 3)
    pinned = stubs.prediction.Predict(predict_request(version=second))
    eventually(lambda: stubs.scrape()("mlpserve_rows_total") == 1501)
    page = stubs.scrape()
    names = ["circle", "square", "star"]
    for label, count in Counter(answer.labels).items():
        shown = page("mlpserve_predictions_total", version="1", class_=names[label])
        assert shown == count
    assert page("mlpserve_predictions_total", version="2", class_=names[pinned.label]) == 1
    assert page("mlpserve_predictions_total") == 1501
    confidences = probabilities.max(axis=1).astype(float)
    for bound in METRICS["mlpserve_confidence"].bounds:
        shown = page("mlpserve_confidence_bucket", version="1", le=str(float(bound)))
        assert shown == (confidences <= bound).sum()
    assert page("mlpserve_confidence_sum", version="1") == pytest.approx(confidences.sum())
    assert page("mlpserve_product_rows_sum") == 1501
    assert page("mlpserve_product_rows_count") == 4  # 512, 512, 476 and 1


def test_values_that_are_no_probabilities_are_no_confidence(stubs: Stubs, publish: Publish) -> None:
    network = Network((12, 8, 3), ("relu", "identity"))
    version = publish(promote=False, network=network)
    stubs.prediction.Predict(predict_request(version=version))
    shown = str(version)
    eventually(lambda: stubs.scrape()("mlpserve_predictions_total", version=shown) == 1)
    assert stubs.scrape()("mlpserve_confidence_count", version=shown) == 0


def test_the_model_and_its_loads_are_shown(stubs: Stubs, store: Store, publish: Publish) -> None:
    info, loads = "mlpserve_model_info", "mlpserve_model_loads_total"
    eventually(lambda: stubs.scrape()(info) == 1)
    manifest = store.manifest(1)
    (shown,) = stubs.scrape().labels(info)
    assert shown == {"model": "mnist", "version": "1", "digest": manifest.digest}
    created = stubs.scrape()("mlpserve_model_created_timestamp_seconds", version="1")
    assert created == pytest.approx(manifest.created.timestamp())
    second = publish(seed=1)
    eventually(lambda: [each["version"] for each in stubs.scrape().labels(info)] == [str(second)])
    third = publish(seed=2, promote=False)
    weights = store.folder / str(third) / "model.npz"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert failure(stubs.prediction.Predict, predict_request(version=third)).name
    eventually(lambda: stubs.scrape()(loads, result="damaged") == 1)
    page = stubs.scrape()
    assert page(loads, result="loaded") == 2
    assert page("mlpserve_model_load_seconds_count") == 2
    assert 0 < page("mlpserve_model_load_seconds_sum") < 20


def test_the_process_and_the_store_are_shown(stubs: Stubs) -> None:
    before = datetime.now(UTC).timestamp()
    eventually(lambda: stubs.scrape()("mlpserve_store_read_timestamp_seconds") > before)
    page = stubs.scrape()
    assert page("mlpserve_workers") == page("mlpserve_workers_ready") == 1
    assert page("mlpserve_cpu_seconds_total") > 0
    assert page("mlpserve_resident_memory_bytes") > 10e6
    assert page("mlpserve_open_files") > 3
    assert before - 60 < page("mlpserve_start_timestamp_seconds") < before
    (build,) = page.labels("mlpserve_build_info")
    assert build["numpy"] == np.__version__


def test_every_metric_is_shown_and_no_other(stubs: Stubs) -> None:
    stubs.prediction.Predict(predict_request())
    settle(stubs)
    shown = {
        line.split()[2] for line in stubs.scrape().text.splitlines() if line.startswith("# TYPE")
    }
    assert shown == set(METRICS)


def test_thousands_of_strange_labels_add_no_series(stubs: Stubs) -> None:
    stubs.prediction.Predict(predict_request())
    settle(stubs)
    before = set(stubs.scrape().series)

    def strange_call(n: int) -> tuple[Any, Any]:
        match n % 4:
            case 0:
                return stubs.prediction.Predict, predict_request(alias=f"secret-{n}")
            case 1:
                return stubs.prediction.Predict, predict_request(version=1000 + n)
            case 2:
                return stubs.channel.unary_unary(f"/mlpserve.v1.Secret{n}/Predict"), b""
            case _:
                return stubs.channel.unary_unary(f'/secret.{n}"}} 1/Strange'), b""

    strange = 1_000
    for first in range(0, strange, 500):
        calls = []
        for n in range(first, first + 500):
            call, request = strange_call(n)
            metadata = [("x-request-id", f"secret{n}"), (f"x-secret-{n}", f"secret{n}")]
            calls.append(call.future(request, timeout=30, metadata=metadata))
        assert all(call.code() != grpc.StatusCode.OK for call in calls)
    eventually(lambda: stubs.scrape()("mlpserve_calls_total") == strange + 1)
    page = stubs.scrape()
    assert set(page.series) == before
    assert "ecret" not in page.text


def test_versions_beyond_a_number_are_counted_together_and_nothing_goes_back() -> None:
    totals = WorkerAggregator()
    seen: dict[tuple[str, ...], float] = {}
    numbers = np.random.default_rng(0).permutation(100) + 1
    for count, version in enumerate(numbers, start=1):
        report = [("mlpserve_predictions_total", ("mnist", str(version), "star"), 1)]
        totals.add(count % 2, report)
        (family,) = (f for f in totals.collect() if f.name == "mlpserve_predictions")
        now = {tuple(s.labels.values()): s.value for s in family.samples}
        assert sum(now.values()) == count
        assert len(now) <= MAX_VERSIONS + 1
        assert all(now[labels] >= value for labels, value in seen.items() if labels in now)
        seen = now
    newest = {str(version) for version in range(101 - MAX_VERSIONS, 101)}
    assert {version for _, version, _ in seen} == newest | {"other"}


def test_calls_of_an_old_version_look_through_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = WorkerAggregator()
    for version in range(2, MAX_VERSIONS + 2):
        totals.add(0, [("mlpserve_predictions_total", ("mnist", str(version), "star"), 1)])
    monkeypatch.setattr(totals, "_fold", None)
    totals.add(0, [("mlpserve_predictions_total", ("mnist", "1", "star"), 3)])
    (family,) = (f for f in totals.collect() if f.name == "mlpserve_predictions")
    assert {tuple(s.labels.values()): s.value for s in family.samples}[
        "mnist", "other", "other"
    ] == 3


def test_models_beyond_a_number_are_counted_together_and_no_row_is_lost() -> None:
    totals = WorkerAggregator()
    for number in range(3 * MAX_MODELS):
        labels = (f"m{number}", str(number % 5 + 1), "star")
        totals.add(0, [("mlpserve_predictions_total", labels, 2)])
    (family,) = (f for f in totals.collect() if f.name == "mlpserve_predictions")
    counts = {tuple(s.labels.values()): s.value for s in family.samples}
    assert len(counts) == MAX_MODELS + 1
    assert counts["other", "other", "other"] == 4 * MAX_MODELS
    assert sum(counts.values()) == 6 * MAX_MODELS


def test_without_a_setting_there_is_no_endpoint(serve: Serve) -> None:
    assert serve().metrics_address == ""


@ANY_TRANSPORT
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_for_metrics_is_a_clear_error(run: Run, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = run("--workers", workers, "--metrics-listen", address)
        assert f"cannot listen on {address} for metrics" in server.event("cannot start")["reason"]
        assert server.process.wait(timeout=20) == 1

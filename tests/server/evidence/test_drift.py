"""Drift: the window counts what came last, and the gauges say what has changed."""

import numpy as np
import pytest

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import CHAMPION, Network, Store, StoredModel, initialise
from mlpserve_model.nn.network import forward, logits
from mlpserve_model.store.evidence.reference import REFERENCE_FILE, SIGNALS, Reference, signals
from mlpserve_server.evidence import drift
from mlpserve_server.evidence.drift import Window
from tests.support.publishing import DRAFT, PROMOTED, Publish
from tests.support.server import Page, Serve, Stubs
from tests.support.waiting import eventually

NETWORK = Network((12, 8, 3))
RNG = np.random.default_rng(0)
WEIGHTS = initialise(NETWORK, RNG)
HOLDOUT = RNG.random((2000, 12), dtype=np.float32)
MORE = RNG.random((2000, 12), dtype=np.float32)


def reference() -> Reference:
    probabilities = forward(NETWORK, WEIGHTS, HOLDOUT)
    rows = signals(HOLDOUT, logits(NETWORK, WEIGHTS, HOLDOUT), probabilities)
    return Reference.of(rows, probabilities.argmax(axis=1), 3)


def publish_with(store: Store, document: bytes) -> int:
    version = store.publish(
        DRAFT, PROMOTED, WEIGHTS, HOLDOUT[:4], {REFERENCE_FILE: document}
    ).version
    expected = store.aliases().get(CHAMPION)
    store.move_alias(CHAMPION, version, expected=expected, event="promote", reason="test")
    return version


@pytest.fixture
def transport() -> str:
    """The rows are seen in the data plane, before a transport carries the answer."""
    return "auto"


@pytest.fixture
def model(store: Store) -> StoredModel:
    return store.load(publish_with(store, reference().encode()))


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample every row, and compare at every poll."""
    monkeypatch.setattr(drift, "ROWS_PER_SECOND", 1e6)
    monkeypatch.setattr(drift, "_MAX_ROWS_AT_ONCE", 10_000)
    monkeypatch.setattr(drift, "_COMPARE_SECONDS", 0.0)


def ask(stubs: Stubs, x: np.ndarray) -> None:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
    stubs.prediction.BatchPredict(pb.BatchPredictRequest(instances=tensor))


def least(page: Page, version: int) -> float:
    """The smallest p-value; 2 while there is none."""
    name, labels = "mlpserve_drift_p_value", ("version", str(version))
    found = [v for (n, have), v in page.series.items() if n == name and labels in have]
    return min(found, default=2.0)


def test_a_window_counts_the_last_rows(model: StoredModel) -> None:
    window = Window(reference(), 500)
    for first in range(0, 2000, 40):
        window.add(model, MORE[first : first + 40])
    assert window.rows == 520  # to within a sample
    last = MORE[-520:]
    z = logits(NETWORK, WEIGHTS, last)
    expected = reference().count(signals(last, z, forward(NETWORK, WEIGHTS, last)))
    for name in SIGNALS:
        np.testing.assert_array_equal(
            getattr(window.counts, name), getattr(expected, name), err_msg=name
        )


@pytest.mark.usefixtures("_quick")
def test_rows_like_the_holdouts_are_no_drift_and_others_are(store: Store, serve: Serve) -> None:
    version = publish_with(store, reference().encode())
    stubs = serve(metrics_listen="127.0.0.1:0", drift_window=2000)
    eventually(stubs.serving)

    def asked(x: np.ndarray) -> float:
        ask(stubs, x)
        return least(stubs.scrape(), version)

    eventually(lambda: asked(MORE) <= 1)
    assert asked(MORE) > 1e-6
    page = stubs.scrape()
    assert page("mlpserve_drift_rows", version=str(version)) >= 100
    assert page("mlpserve_drift_class_share") == pytest.approx(1)
    assert page("mlpserve_drift_class_share_expected") == pytest.approx(1)
    assert page("mlpserve_drift_psi") < page("mlpserve_drift_psi_threshold")
    dark = MORE * np.float32(0.5)
    eventually(lambda: asked(dark) < 1e-6)
    eventually(lambda: asked(MORE) > 1e-6)


@pytest.mark.usefixtures("_quick")
def test_a_new_version_begins_a_window_of_its_own(store: Store, serve: Serve) -> None:
    first = publish_with(store, reference().encode())
    stubs = serve(metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)

    def seen(version: int) -> bool:
        ask(stubs, MORE)
        return stubs.scrape()("mlpserve_drift_rows", version=str(version)) > 0

    eventually(seen, first)
    second = publish_with(store, reference().encode())
    eventually(seen, second)
    eventually(lambda: not stubs.scrape()("mlpserve_drift_rows", version=str(first)))


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("document", [None, b"{}"])
def test_a_version_without_a_sound_reference_is_served_and_not_watched(
    document: bytes | None,
    store: Store,
    publish: Publish,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if document is None:
        publish()
    else:
        publish_with(store, document)
    stubs = serve(metrics_listen="127.0.0.1:0")
    eventually(stubs.serving)
    for _ in range(3):
        ask(stubs, MORE)
    eventually(lambda: stubs.scrape()("mlpserve_rows_total") >= 6000)
    if document is not None:
        eventually(lambda: "no drift watched" in caplog.text)
    assert not stubs.scrape().labels("mlpserve_drift_rows")


@pytest.mark.usefixtures("_quick")
def test_a_window_of_no_rows_is_off(store: Store, serve: Serve) -> None:
    publish_with(store, reference().encode())
    stubs = serve(metrics_listen="127.0.0.1:0", drift_window=0)
    eventually(stubs.serving)
    ask(stubs, MORE)
    eventually(lambda: stubs.scrape()("mlpserve_rows_total") >= 2000)
    page = stubs.scrape()
    assert not page.labels("mlpserve_drift_rows")
    assert not page("mlpserve_follower_alive", follower="drift")

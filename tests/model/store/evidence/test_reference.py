import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlpserve_model import CorruptVersion, Manifest, Store
from mlpserve_model.store.evidence.reference import (
    REFERENCE_FILE,
    Counts,
    Histogram,
    Reference,
    Signals,
    drift,
    read_reference,
    signals,
)
from tests.support.forging import Publish


def some_signals(rows: int, seed: int, shift: float = 0.0) -> Signals:
    rng = np.random.default_rng(seed)
    logits = rng.normal(shift, 2, (rows, 3)).astype(np.float32)
    e = np.exp(logits)
    return signals(rng.random((rows, 4), dtype=np.float32), logits, e / e.sum(1, keepdims=True))


@pytest.fixture(scope="module")
def reference() -> Reference:
    found = some_signals(1000, seed=1)
    return Reference.of(found, np.random.default_rng(3).integers(0, 3, 1000), 3)


def test_it_is_read_back_as_it_was_written(reference: Reference) -> None:
    assert Reference.decode(reference.encode(), 3) == reference
    without = replace(reference, confusion=None)
    assert Reference.decode(without.encode(), 3) == without
    assert reference.rows == 1000
    for name in ("confidence", "energy", "mean_input"):
        assert len(getattr(reference, name).edges) == 9
        assert max(getattr(reference, name).counts) <= 102


def test_fields_of_later_releases_are_ignored(reference: Reference) -> None:
    document = json.loads(reference.encode()) | {"later": [1]}
    assert Reference.decode(json.dumps(document).encode(), 3) == reference


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an object with": lambda d: d.pop("energy"),
    "a list of 3 integers": lambda d: d.update(predicted=[1, 2]),
    "0 to 2\\^53": lambda d: d["predicted"].__setitem__(0, True),
    "energy.counts is another value": lambda d: d["energy"]["counts"].__setitem__(0, -1),
    "as of the predicted": lambda d: d["energy"]["counts"].__setitem__(0, 1),
    "numbers that increase": lambda d: d["confidence"]["edges"].__setitem__(0, 2),
    "at most 64 numbers": lambda d: d["confidence"].update(edges=list(range(65))),
    "edges is another value": lambda d: d["mean_input"]["edges"].__setitem__(0, "1"),
    "an object with edges": lambda d: d.update(mean_input=[]),
    "null or a list": lambda d: d.update(confusion=[[1]]),
    "columns that add up": lambda d: d["confusion"][0].__setitem__(0, 7),
}


@pytest.mark.parametrize("message", EDITS)
def test_anything_else_is_refused(reference: Reference, message: str) -> None:
    document = json.loads(reference.encode())
    EDITS[message](document)
    with pytest.raises(CorruptVersion, match=message):
        Reference.decode(json.dumps(document).encode(), 3)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b"\xff", b"[" * 9999, b" " * (2**20 + 1)])
def test_what_is_not_such_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptVersion, match=r"reference\.json"):
        Reference.decode(data, 3)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_the_error_is_one(data: bytes) -> None:
    with pytest.raises(CorruptVersion):
        Reference.decode(data, 3)


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)))
def test_every_value_is_counted_once_and_edges_increase(values: np.ndarray) -> None:
    histogram = Histogram.of(values)
    assert sum(histogram.counts) == len(values)
    assert histogram.bins(values).tolist() == list(histogram.counts)
    assert all(a < b for a, b in zip(histogram.edges, histogram.edges[1:], strict=False))


def test_values_that_differ_by_rounding_share_a_bin() -> None:
    values = np.repeat(np.linspace(0, 1, 5), 20)
    noisy = values + np.random.default_rng(1).normal(0, 1e-7, 100)
    histogram = Histogram.of(values)
    assert histogram.bins(noisy).tolist() == list(histogram.counts)
    assert Histogram.of(np.ones(9)) == Histogram((), (9,))


def test_the_energy_of_a_row_is_minus_the_logarithm_of_the_summed_exponents() -> None:
    logits = np.array([[1000.0, 1000.0], [0.0, -1000.0]], np.float32)
    found = signals(np.array([[0.0, 1.0], [1.0, 1.0]], np.float32), logits, np.eye(2))
    assert found.energy == pytest.approx([-1000 - np.log(2), 0])
    assert found.mean_input.tolist() == [0.5, 1.0]
    assert (found.predicted.tolist(), found.confidence.tolist()) == ([0, 1], [1.0, 1.0])


def test_rows_like_the_reference_do_not_drift_and_others_do(reference: Reference) -> None:
    same = drift(reference, reference.count(some_signals(800, seed=2)))
    moved = drift(reference, reference.count(some_signals(800, seed=2, shift=1.0)))
    assert list(same) == ["predicted", "confidence", "energy", "mean_input"]
    assert min(found.p for found in same.values()) > 0.01
    assert moved["energy"].p < 1e-6
    assert moved["energy"].psi > moved["energy"].psi_threshold
    assert moved["mean_input"].p > 0.01
    assert moved["energy"].rows == 800


def test_signals_that_were_not_counted_are_left_out(reference: Reference) -> None:
    assert list(drift(reference, Counts(predicted=reference.predicted))) == ["predicted"]


def test_a_version_without_one_has_none(store: Store, published: Manifest) -> None:
    assert read_reference(store, published) is None


def test_a_versions_own_is_read_and_checked_by_its_digest(
    store: Store, publish: Publish, reference: Reference
) -> None:
    manifest = publish(files={REFERENCE_FILE: reference.encode()})
    assert store.verify(manifest.version) == manifest  # as readers that do not know it
    assert read_reference(store, manifest) == reference
    (store.path(1) / REFERENCE_FILE).write_bytes(reference.encode().replace(b"1", b"2", 1))
    with pytest.raises(CorruptVersion, match="digest"):
        read_reference(store, manifest)

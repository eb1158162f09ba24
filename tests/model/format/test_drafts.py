"""What no reader would accept is not published."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpserve_model import (
    CorruptVersion,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    Weights,
)
from tests.support.forging import Golden, Publish


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signature": Signature((2, 2), 16, ("a", "a", "b"))}, "3 different names"),
        ({"metrics": {"accuracy": float("nan")}}, "manifest.json cannot be written"),
        ({"recipe": {"when": object()}}, "manifest.json cannot be written"),
        ({"recipe": {"text": "\udcff"}}, "manifest.json cannot be written"),
        ({"recipe": {"text": "x" * 2**20}}, "expected at most 1048576"),
        ({"signature": Signature((5,), 16, ("a", "b", "c"))}, "a product of 4"),
        ({"network": Network((4, 6, 3))}, "has the header"),
        ({"extra": {"format": 3}}, "format 3 is unknown"),
    ],
)
def test_a_draft_that_is_not_valid_is_rejected_and_leaves_nothing(
    change: dict[str, Any],
    reason: str,
    store: Store,
    draft: Draft,
    weights: Weights,
    golden: Golden,
) -> None:
    with pytest.raises(CorruptVersion, match=reason):
        store.publish(replace(draft, **change), Verdict("PROMOTED"), weights, golden)
    assert store.versions() == []
    assert store.history() == []


@pytest.mark.parametrize(
    ("golden", "reason"),
    [
        (np.full((2, 4), np.nan, np.float32), "inputs has values that are not finite"),
        (np.zeros((2, 5), np.float32), "golden inputs"),
        (np.zeros(4, np.float32), "golden inputs"),
        (np.zeros((0, 4), np.float32), "golden_rows is 0"),
        (np.zeros((1025, 4), np.float32), "golden_rows is 1025"),
    ],
)  # fmt: skip
def test_golden_inputs_that_no_reader_accepts_are_rejected(
    golden: Golden, reason: str, store: Store, draft: Draft, weights: Weights
) -> None:
    with pytest.raises(CorruptVersion, match=reason):
        store.publish(draft, Verdict("PROMOTED"), weights, golden)
    assert store.versions() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_weights_that_are_not_finite_or_overflow_are_rejected(
    value: float, store: Store, draft: Draft, weights: Weights, golden: Golden
) -> None:
    wild = tuple(layer._replace(w=np.full_like(layer.w, value)) for layer in weights)
    with pytest.raises(CorruptVersion, match="not finite"):
        store.publish(draft, Verdict("PROMOTED"), wild, golden)
    assert store.versions() == []


@pytest.mark.parametrize("name", ["../x.md", "/tmp/x.md", "manifest.json", "Report.html", "a", ""])
def test_extra_files_of_strange_names_are_rejected(
    name: str, store: Store, publish: Publish
) -> None:
    with pytest.raises(CorruptVersion, match="expected names that match"):
        publish(files={name: b""})
    assert store.versions() == []
    assert not any(p.suffix == ".md" for p in store.folder.parent.parent.rglob("*"))

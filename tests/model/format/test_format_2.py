"""Format 2: an activation for each layer, and real inputs; format 1 wherever it can say it."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from mlpserve_model import (
    Draft,
    InputValues,
    Manifest,
    Network,
    Signature,
    Store,
    Verdict,
    initialise,
)
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from tests.support.forging import EditManifest, Rejection

REAL = Signature((4,), 1.0, ("ash", "birch", "cedar"), "real")
OLD = [Network.uniform((4, 5, 6, 3), *pair) for pair in product(("relu", "sigmoid", "tanh"),
       ("softmax", "sigmoid"))]  # fmt: skip
NEW = [Network((4, 5, 6, 3), layers) for layers in product(HIDDEN, HIDDEN, OUTPUT)]
NEW = [network for network in NEW if network not in OLD]

PublishNew = Callable[[Network, Signature], Manifest]


@pytest.fixture
def publish_new(store: Store, draft: Draft) -> PublishNew:
    def publish(network: Network, signature: Signature) -> Manifest:
        described = replace(draft, network=network, signature=signature)
        rng = np.random.default_rng(3)
        inputs = rng.normal(0, 5, (6, network.inputs)).astype(np.float32)
        weights = initialise(network, rng, "xavier")
        return store.publish(described, Verdict("PROMOTED"), weights, inputs)

    return publish


def test_what_format_1_can_say_is_written_in_it(publish_new: PublishNew, draft: Draft) -> None:
    for network in (*OLD, Network((4, 3))):
        document = json.loads(publish_new(network, draft.signature).document)
        assert document["format"] == 1
        assert document["output_activation"] == network.output_activation
        assert (
            document["hidden_activation"] in network.activations
            or len(document["layer_sizes"]) == 2
        )
        assert "activations" not in document
        assert "kind" not in document["input"]


def test_a_manifest_of_format_1_has_the_fields_it_always_had(published: Manifest) -> None:
    assert list(json.loads(published.document)) == [
        *("format", "model", "version", "created", "layer_sizes", "hidden_activation"),
        *("output_activation", "input", "class_names", "files", "golden_rows", "dataset", "recipe"),
        *("seed", "libraries", "metrics", "gate"),
    ]


@pytest.mark.parametrize("network", NEW[:: len(NEW) // 8])
def test_other_activations_are_published_in_format_2_and_loaded(
    network: Network, publish_new: PublishNew, store: Store, draft: Draft
) -> None:
    manifest = publish_new(network, draft.signature)
    document = json.loads(manifest.document)
    assert document["format"] == 2
    assert tuple(document["activations"]) == network.activations
    assert store.load(1).manifest.network == network
    assert store.load(1).manifest.signature == draft.signature


def test_every_combination_is_read_as_it_was_written(publish_new: PublishNew, draft: Draft) -> None:
    document = json.loads(publish_new(NEW[0], draft.signature).document)
    for network in NEW:
        data = json.dumps(document | {"activations": network.activations}).encode()
        assert read_manifest(data).network == network


def test_real_inputs_need_format_2(publish_new: PublishNew, store: Store) -> None:
    manifest = publish_new(Network((4, 5, 3)), REAL)
    document = json.loads(manifest.document)
    assert (document["format"], document["input"]["kind"]) == (2, "real")
    model = store.load(1)
    assert model.manifest.signature == REAL
    assert model.manifest.extra == {}
    np.testing.assert_allclose(model.predict(np.full((1, 4), -1e3, np.float32)).sum(), 1, rtol=1e-5)


def test_the_means_of_real_inputs_are_read_back(store: Store, draft: Draft) -> None:
    values = InputValues("real", -5, 5, (1.5, -2.0, 0.0, 3.25))
    described = replace(draft, network=Network((4, 3)), signature=REAL, input_values=values)
    weights = initialise(described.network, np.random.default_rng(0))
    store.publish(described, Verdict("PROMOTED"), weights, np.zeros((1, 4), np.float32))
    assert store.load(1).manifest.input_values == values


def test_large_answers_of_identity_outputs_pass_the_self_test_by_their_size(
    store: Store, draft: Draft
) -> None:
    network = Network((4, 5, 3), ("relu", "identity"))
    described = replace(draft, network=network, signature=REAL)
    rng = np.random.default_rng(3)
    inputs = rng.normal(0, 1e6, (6, 4)).astype(np.float32)
    store.publish(described, Verdict("PROMOTED"), initialise(network, rng), inputs)
    assert np.abs(store.load(1).predict(inputs)).max() > 1e5


def _without(field: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(field)


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no activations": (_without("activations"), "has no activations"),
    "an empty list": (lambda d: d.update(activations=[]), "expected one for each layer"),
    "one too few": (lambda d: d.update(activations=["softmax"]), "1 activations for 2 layers"),
    "one too many": (lambda d: d["activations"].append("softmax"), "3 activations for 2 layers"),
    "an unknown one": (lambda d: d.update(activations=["swish", "softmax"]), "'swish': use one of"),
    "softmax inside": (lambda d: d.update(activations=["softmax"] * 2), "'softmax': use one of"),
    "relu at the output": (lambda d: d.update(activations=["relu"] * 2), "'relu': use one of"),
    "words": (lambda d: d.update(activations="gelu,softmax"), "expected a list"),
    "numbers": (lambda d: d.update(activations=[1, 2]), "expected a list of strings"),
    "another one": (lambda d: d.update(activations=["tanh", "softmax"]), "the self-test is off by"),
    "format 1's field too": (lambda d: d.update(hidden_activation="relu"), "expected one"),
    "no kind": (lambda d: d["input"].pop("kind"), "has no input.kind"),
    "an unknown kind": (lambda d: d["input"].update(kind="text"), "one of pixels, real"),
    "means of another number": (
        lambda d: d["input"].update(values={"kind": "real", "low": 0, "high": 1, "means": [1, 2]}),
        "input.values.means is (1.0, 2.0), expected 4 numbers",
    ),
    "means that are no numbers": (
        lambda d: d["input"].update(values={"kind": "real", "low": 0, "high": 1, "means": ["a"]}),
        "input.values.means is 'a', expected a finite number",
    ),
    "means that are not a list": (
        lambda d: d["input"].update(values={"kind": "real", "low": 0, "high": 1, "means": 4}),
        "input.values.means is 4, expected a list",
    ),
    "no maximum": (lambda d: d["input"].pop("maximum"), "has no input.maximum"),
    "format 1": (lambda d: d.update(format=1), "has no hidden_activation"),
    "format 1 with a new one": (
        lambda d: d.update(format=1, hidden_activation="gelu", output_activation="softmax"),
        "expected one of relu, sigmoid, tanh",
    ),
    "format 1 with identity": (
        lambda d: d.update(format=1, hidden_activation="relu", output_activation="identity"),
        "expected one of softmax, sigmoid",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_of_format_2_that_lies_is_rejected(
    lie: str,
    publish_new: PublishNew,
    edit_manifest: EditManifest,
    store: Store,
    rejection: Rejection,
) -> None:
    change, reason = LIES[lie]
    publish_new(Network((4, 5, 3), ("gelu", "softmax")), REAL)
    edit_manifest(change)
    assert reason in rejection(lambda: store.load(1))

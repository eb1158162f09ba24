"""Versions that leave for another format come back as they were, and mean the same elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from mlpserve_model import StoredModel
from mlpserve_model.interchange.exporting import FORMATS, export_network
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.importing import ImportOptions, import_network
from tests.support.random_versions import random_inputs, random_version

NETWORKS = range(60)

Export = Callable[[StoredModel, str], Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def export(version: StoredModel, kind: str) -> Path:
        path = tmp_path / f"exported{FORMATS[kind]}"
        path.write_bytes(export_network(version, kind))
        return path

    return export


def assert_same(found: ImportedNetwork, version: StoredModel) -> None:
    manifest = version.manifest
    assert found.network == manifest.network
    for layer, original in zip(found.weights, version.weights, strict=True):
        np.testing.assert_array_equal(layer.w, original.w)
        np.testing.assert_array_equal(layer.b, original.b)
    said, signature = found.metadata, manifest.signature
    assert said.class_names == signature.class_names
    assert said.input_shape == signature.input_shape
    assert said.input_kind == signature.input_kind
    assert said.input_maximum == signature.input_maximum
    assert said.input_values == manifest.input_values
    assert said.origin["digest"] == manifest.digest
    assert said.origin["version"] == "3"


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "npz"])
def test_what_is_exported_comes_back_bit_for_bit(kind: str, export: Export) -> None:
    for seed in NETWORKS:
        version = random_version(seed)
        assert_same(import_network(export(version, kind), ImportOptions()), version)


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_versions_give_equal_bytes(kind: str) -> None:
    assert export_network(random_version(3), kind) == export_network(random_version(3), kind)


def test_onnxruntime_computes_the_same_probabilities(export: Export) -> None:
    for seed in NETWORKS:
        version = random_version(seed)
        onnx.checker.check_model(onnx.load(export(version, "onnx")), full_check=True)
        session = onnxruntime.InferenceSession(export(version, "onnx"))
        x = random_inputs(version, 50)
        shaped = x.reshape(-1, *version.manifest.signature.input_shape)
        [answers] = session.run(None, {"input": shaped})
        np.testing.assert_allclose(answers, version.predict(x), atol=1e-5, rtol=1e-5)


def test_the_safetensors_library_reads_what_is_written(export: Export) -> None:
    version = random_version(4)
    path = export(version, "safetensors")
    arrays = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays["w2"], version.weights[1].w)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["mlpserve.digest"] == version.manifest.digest


def test_numpy_reads_what_is_written(export: Export) -> None:
    version = random_version(4)
    with np.load(export(version, "npz"), allow_pickle=False) as arrays:
        assert sorted(arrays) == [*(f"b{i}" for i in range(1, 6)), "metadata",
                                  *(f"w{i}" for i in range(1, 6))]  # fmt: skip
        np.testing.assert_array_equal(arrays["b5"], version.weights[4].b)

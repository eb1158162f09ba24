"""The C header, compiled with every warning an error, answers as the version does."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve_model import Layer, Network, Signature, StoredModel, UnsupportedModel
from mlpserve_model.interchange.c_header import MAX_PARAMETERS, export_c
from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from tests.support.random_versions import random_inputs, random_version, stored

ROWS = 10_000
PROGRAM = """
#include "model.h"
#include <stdio.h>

int main(void)
{
    INPUT_TYPE input[RANDOM_NET_1_INPUTS];
    float output[RANDOM_NET_1_CLASSES];
    for (int i = 0; i < RANDOM_NET_1_CLASSES; i++)
        printf("%s%c", random_net_1_class_names[i], 0);
    while (fread(input, sizeof input, 1, stdin) == 1) {
        PREDICT(input, output);
        fwrite(output, sizeof output, 1, stdout);
        putchar(random_net_1_label(output));
    }
    return 0;
}
"""
pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


def run(version: StoredModel, folder: Path, data: bytes, kind: str = "float") -> bytes:
    """What the compiled program answers to these inputs, in the bytes of the machine."""
    (folder / "model.h").write_bytes(export_c(version))
    (folder / "main.c").write_text(PROGRAM)
    predict = "random_net_1_predict" + ("" if kind == "float" else "_bytes")
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c99", "-O2", f"-DINPUT_TYPE={kind}"]
    subprocess.run(
        ["gcc", *flags, f"-DPREDICT={predict}", "main.c", "-o", "main", "-lm"],
        cwd=folder, check=True,
    )  # fmt: skip
    return subprocess.run([folder / "main"], input=data, capture_output=True, check=True).stdout


def assert_answers(version: StoredModel, output: bytes, expected: NDArray[np.float32]) -> None:
    names = version.manifest.signature.class_names
    head = b"".join(name.encode() + b"\0" for name in names)
    assert output.startswith(head)
    row = np.dtype([("output", "f4", len(names)), ("label", "u1")])
    answers = np.frombuffer(output[len(head) :], row)
    np.testing.assert_allclose(answers["output"], expected, atol=2e-5, rtol=2e-5)
    np.testing.assert_array_equal(answers["label"], answers["output"].argmax(axis=1))


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_ten_thousand_rows_are_answered_alike(seed: int, tmp_path: Path) -> None:
    version = random_version(seed)
    x = random_inputs(version, ROWS)
    assert_answers(version, run(version, tmp_path, x.tobytes()), version.predict(x))


@pytest.mark.parametrize("output", OUTPUT)
def test_every_activation_in_one_network(output: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    network = Network((6,) * (len(HIDDEN) + 2), (*HIDDEN, output))
    weights = tuple(
        Layer(rng.normal(size=shape).astype("f4") / 2, rng.normal(size=shape[1]).astype("f4"))
        for shape in network.layer_shapes
    )
    version = stored(network, weights, Signature((6,), 1.0, tuple("abcdef"), "real"))
    x = random_inputs(version, ROWS)
    assert_answers(version, run(version, tmp_path, x.tobytes()), version.predict(x))


def test_raw_pixels_are_scaled_as_the_server_does(tmp_path: Path) -> None:
    version = random_version(1)
    pixels = np.random.default_rng(6).integers(
        0, 17, (ROWS, version.manifest.network.inputs), np.uint8
    )
    expected = version.predict(pixels.astype(np.float32) * np.float32(1 / 16))
    assert_answers(version, run(version, tmp_path, pixels.tobytes(), "uint8_t"), expected)


def test_it_is_cpp_too(tmp_path: Path) -> None:
    (tmp_path / "model.h").write_bytes(export_c(random_version(3)))
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c++11", "-fsyntax-only"]
    subprocess.run(["gcc", *flags, "-x", "c++", "model.h"], cwd=tmp_path, check=True)


def test_the_stack_of_raw_pixels_counts_their_floats() -> None:
    network = random_version(3).manifest.network
    text = export_c(random_version(3)).decode()
    stack = 8 * max(network.layer_sizes[1:])
    assert f"a call {stack} bytes of stack, of raw pixels {stack + 4 * network.inputs}." in text


def test_no_name_of_a_class_changes_the_code(tmp_path: Path) -> None:
    names = ("/*", "*/ int x;", "*/*", "??/", "??/*", '"\\', "a\\")
    rng = np.random.default_rng(7)
    weights = (Layer(rng.normal(size=(2, 7)).astype("f4"), np.zeros(7, np.float32)),)
    version = stored(Network((2, 7)), weights, Signature((2,), 1.0, names, "real"))
    x = random_inputs(version, ROWS)
    assert_answers(version, run(version, tmp_path, x.tobytes()), version.predict(x))


def test_a_network_for_no_microcontroller_is_refused() -> None:
    network = Network((2, MAX_PARAMETERS, 2))
    weights = tuple(
        Layer(np.zeros(shape, np.float32), np.zeros(shape[1], np.float32))
        for shape in network.layer_shapes
    )
    version = stored(network, weights, Signature((2,), 255.0, ("a", "b")))
    with pytest.raises(UnsupportedModel, match="export it as onnx or safetensors"):
        export_c(version)

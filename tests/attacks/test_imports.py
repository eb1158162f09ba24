"""Files that someone sends to be imported: refused with a sentence, whatever they hold.

tests/model/interchange has the hostile ONNX graphs one by one; here are pickles under other names,
and changes at random to whole files of every format.
"""

import gzip
import io
import pickle
import random
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpserve_model import UnsupportedModel
from mlpserve_model.format import arrays
from mlpserve_model.interchange.importing import ImportOptions, import_network
from tests.fuzz.target import CORPUS
from tests.support.numbers import SIGNALLING_NAN, SIGNALLING_NAN_32

MAX_MEMORY = 64 * 2**20
LEFT_OPEN = ImportOptions(activations=("relu", "softmax"))
FORMATS = ("onnx", "safetensors", "npz", "skops")
MARK = "the pickle ran"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(MARK),))


def torch_file(pickled: bytes) -> bytes:
    """What torch.save writes: a zip whose data.pkl is a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.writestr("model/data/0", b"\0" * 16)
    return buffer.getvalue()


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w1=np.array([Bomb()], object))
    return buffer.getvalue()


PICKLES = {
    **{f"protocol {number}": pickle.dumps(Bomb(), number) for number in range(6)},
    "torch": torch_file(pickle.dumps(Bomb())),
    "joblib": gzip.compress(pickle.dumps(Bomb())),
    "objects": object_array(),
}


@pytest.mark.parametrize("ending", [".onnx", ".safetensors", ".npz", ".skops", ".pt", ".pkl", ""])
@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_is_never_run_whatever_it_is_called(
    kind: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{ending}"
    path.write_bytes(PICKLES[kind])
    with pytest.raises(UnsupportedModel) as caught:
        import_network(path, LEFT_OPEN)
    assert not Path(MARK).exists()
    if kind in ("protocol 2", "protocol 4", "protocol 5", "torch"):
        assert "is a pickle, which runs code" in str(caught.value)
        assert "torch.onnx.export" in str(caught.value) or "skops.io.dump" in str(caught.value)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_large_directory_is_not_read(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose entries take ten times their bytes, before the file is known to be of this format."""
    path = tmp_path / f"model.{ending}"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(25_000):
            archive.writestr(f"{number}", b"")
    opened: list[Any] = []
    monkeypatch.setattr(zipfile, "ZipFile", opened.append)
    with pytest.raises(UnsupportedModel) as caught:
        import_network(path, LEFT_OPEN)
    assert opened == []
    if ending in ("npz", "skops"):
        assert "expected at most 1048576" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.pt", "torch.onnx.export"), ("model.joblib", "skops.io.dump"),
        ("model.h5", "tf2onnx"), ("model.csv", "expected one of .onnx, .safetensors, .npz, .skops"),
    ],
)  # fmt: skip
def test_other_files_are_refused_with_the_way_out(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UnsupportedModel, match=words):
        import_network(tmp_path / name, LEFT_OPEN)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for path, words in (
        (tmp_path / "folder.onnx", "not a regular file"),
        (tmp_path / "missing.npz", "No such file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "a\0b.npz", "cannot be read"),
    ):
        with pytest.raises(UnsupportedModel, match=words):
            import_network(path, LEFT_OPEN)


def check(path: Path) -> None:
    """The file is refused, or what is read of it can be stored; in little memory."""
    tracemalloc.start()
    try:
        found = import_network(path, LEFT_OPEN)
        arrays.decode_weights(arrays.encode_weights(found.weights), found.network)
    except UnsupportedModel as error:
        assert str(error)  # noqa: PT017  # refused as documented, with a reason
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used < MAX_MEMORY


def changed(data: bytes, random: random.Random) -> bytes:
    """Flip, insert, remove and repeat some bytes."""
    whole = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        place, length = random.randrange(len(whole) + 1), random.choice((1, 2, 8, 64))
        match random.randrange(4):
            case 0:
                del whole[place : place + length]
            case 1:
                start = random.randrange(len(whole) + 1)
                whole[place:place] = whole[start : start + length]
            case 2:
                whole[place : place + 1] = random.choice((b"\0", b"\x01", b"\x7f", b"\xff"))
            case 3 if place < len(whole):
                whole[place] ^= 1 << random.randrange(8)
    return bytes(whole)


Make = Callable[[random.Random], None]
MANY = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def seeds(kind: str) -> list[Path]:
    return sorted((CORPUS / f"interchange.{kind}").iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_files_with_bytes_changed_at_random(kind: str, tmp_path: Path) -> None:
    @MANY
    @given(st.randoms(use_true_random=False))
    def run(random: random.Random) -> None:
        path = tmp_path / f"own.{kind}"
        path.write_bytes(changed(random.choice(seeds(kind)).read_bytes(), random))
        check(path)

    run()


def signalling(array: Any) -> Any:
    """A copy whose first number is a signalling NaN."""
    spoilt = array.copy()
    spoilt.ravel()[:1] = SIGNALLING_NAN if array.dtype == np.float64 else SIGNALLING_NAN_32
    return spoilt


def test_a_signalling_nan_is_refused_without_a_warning(tmp_path: Path) -> None:
    """Arithmetic with it warns, and a warning is no sentence: they are errors in these tests."""
    path, tried = tmp_path / "own.onnx", 0
    for seed in seeds("onnx"):
        for place, tensor in enumerate(onnx.load(seed).graph.initializer):
            model, array = onnx.load(seed), onnx.numpy_helper.to_array(tensor)
            if array.dtype in (np.float32, np.float64):
                spoilt = onnx.numpy_helper.from_array(signalling(array), tensor.name)
                model.graph.initializer[place].CopyFrom(spoilt)
                path.write_bytes(model.SerializeToString())
                with pytest.raises(UnsupportedModel):
                    import_network(path, LEFT_OPEN)
                tried += 1
    assert tried > 10


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["w1", "b1"])
def test_a_signalling_nan_among_arrays_is_refused_without_a_warning(
    kind: Any, name: str, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"w1": np.ones((4, 3), kind), "b1": np.ones(3, kind)}
    named[name] = signalling(named[name])
    np.savez(tmp_path / "own.npz", **named)
    with pytest.raises(UnsupportedModel, match="not finite"):
        import_network(tmp_path / "own.npz", ImportOptions(activations=("softmax",)))


OPERATORS = (
    "Add", "Sub", "Mul", "Div", "Gemm", "MatMul", "Relu", "Softmax", "Concat", "Gather", "Reshape",
    "Shape", "Slice", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Cast", "Constant", "ArgMax",
    "BatchNormalization", "ZipMap", "Scaler", "Normalizer", "LabelEncoder", "Pow", "Clip", "Conv",
    "ArrayFeatureExtractor", "Identity", "Dropout", "LogSoftmax", "PRelu", "Erf", "Max",
)  # fmt: skip
SIZES = (-(2**63), -1, 0, 1, 2, 3, 2**20, 2**31, 2**63 - 1)


def rewired(model: Any, random: random.Random) -> None:
    """Change a graph so that it stays a message: other operators, wires, shapes, attributes."""
    graph = model.graph
    node = random.choice(graph.node)
    tensor = random.choice(graph.initializer)
    names = [n for each in graph.node for n in (*each.input, *each.output)] + [tensor.name, ""]
    match random.randrange(11):
        case 0:
            node.op_type = random.choice(OPERATORS)
        case 1 if node.input:
            node.input[random.randrange(len(node.input))] = random.choice(names)
        case 2 if node.output:
            node.output[random.randrange(len(node.output))] = random.choice(names)
        case 3:
            graph.node.add().CopyFrom(random.choice(graph.node))
        case 4 if len(graph.node) > 1:
            graph.node.remove(node)
        case 5 if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice(SIZES)
        case 6:
            tensor.data_type = random.randrange(25)
        case 7:
            name = random.choice(("axis", "perm", "to", "alpha", "axes", "transB", "value"))
            value = random.choice((-5, 0, 1, 7, 0.5, [0, 1], [1, 0], [9], "text", [b"a"], tensor))
            node.attribute.append(onnx.helper.make_attribute(name, value))
        case 8:
            model.opset_import[0].version = random.choice((1, 7, 11, 12, 13, 18, 21, 99))
        case 9:
            dims = graph.input[0].type.tensor_type.shape.dim
            random.choice(dims).dim_value = random.choice(SIZES)
        case 10:
            graph.input[0].type.tensor_type.elem_type = random.randrange(25)


def test_graphs_rewired_at_random(tmp_path: Path) -> None:
    @settings(MANY, max_examples=400)
    @given(st.randoms(use_true_random=False))
    def run(random: random.Random) -> None:
        path = tmp_path / "own.onnx"
        model = onnx.load(random.choice(seeds("onnx")))
        for _ in range(random.choice((1, 2, 4, 8))):
            rewired(model, random)
        path.write_bytes(model.SerializeToString())
        check(path)

    run()


def test_the_seeds_are_imported_as_they_are(tmp_path: Path) -> None:
    """Or else the changes above would change what is refused anyway."""
    for kind in FORMATS:
        for seed in seeds(kind):
            path = Path(shutil.copy(seed, tmp_path / f"own.{kind}"))
            assert import_network(path, LEFT_OPEN).network.layer_sizes

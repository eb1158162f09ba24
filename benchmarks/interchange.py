"""How exactly networks survive other formats and libraries, and which foreign files are imported.

    python -m benchmarks.interchange [--networks 200] [--foreign FOLDER ...] [--json FILE]

Random networks of one to five layers, with every activation and both kinds of inputs, go through
each format and back, into onnxruntime, PyTorch and C; networks of PyTorch (with batch
normalisation) and of scikit-learn (with scalers) come in. What is not installed is left out. With
--foreign, every .onnx file below the folders is imported, or its refusal is listed.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_model import StoredModel, UnsupportedModel, forward
from mlpserve_model.interchange.exporting import FORMATS, export_network
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.importing import ImportOptions, import_network
from mlpserve_model.nn.types import Array
from tests.support.random_versions import random_inputs, random_version

ROWS = 200
MAX_REASON = 70  # characters of a refusal in the table

Route = Callable[[int, Path], float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--foreign", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print("| route | networks | largest difference of a probability |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for name, route in _routes():
            differences = [route(seed, Path(scratch)) for seed in range(options.networks)]
            results[name] = {"networks": len(differences), "largest": max(differences)}
            print(f"| {name} | {len(differences)} | {max(differences):.1e} |", flush=True)
    for folder in options.foreign:
        found = _foreign(folder)
        results[folder.name] = found
        print(f"\n{folder.name}: {sum(found.values())} files\n")
        for reason, count in Counter(found).most_common():
            print(f"| {count} | {reason} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _routes() -> Iterator[tuple[str, Route]]:
    for kind in ("onnx", "safetensors", "npz"):
        yield f"to {kind} and back", partial(_there_and_back, kind)
    yield "to ONNX, in onnxruntime", _in_onnxruntime
    if shutil.which("gcc"):
        yield "to C, compiled", _in_c
    if find_spec("torch"):
        yield "to safetensors, in PyTorch", _in_torch
        yield "from PyTorch by safetensors", partial(_from_torch, _torch_safetensors)
        yield "from PyTorch by ONNX, torch.export", partial(_from_torch, _torch_onnx, dynamo=True)
        yield "from PyTorch by ONNX, TorchScript", partial(_from_torch, _torch_onnx, dynamo=False)
    if find_spec("skl2onnx") and find_spec("skops"):
        yield "from scikit-learn by skl2onnx", partial(_from_sklearn, _skl2onnx)
        yield "from scikit-learn by skops", partial(_from_sklearn, _skops)


def _difference(answers: Array, expected: Array) -> float:
    """Return the largest difference, of values beyond 1 (identity outputs) the relative one."""
    return float((np.abs(answers - expected) / np.maximum(1, np.abs(expected))).max())


def _answers(found: ImportedNetwork, x: Array) -> Array:
    return forward(found.network, found.weights, x)


def _exported(version: StoredModel, kind: str, folder: Path) -> Path:
    path = folder / f"network{FORMATS[kind]}"
    path.write_bytes(export_network(version, kind))
    return path


def _there_and_back(kind: str, seed: int, folder: Path) -> float:
    version = random_version(seed)
    found = import_network(_exported(version, kind, folder), ImportOptions())
    assert found.network == version.manifest.network
    x = random_inputs(version, ROWS)
    return _difference(_answers(found, x), version.predict(x))


def _in_onnxruntime(seed: int, folder: Path) -> float:
    import onnxruntime

    version = random_version(seed)
    session = onnxruntime.InferenceSession(_exported(version, "onnx", folder))
    x = random_inputs(version, ROWS)
    shaped = x.reshape(-1, *version.manifest.signature.input_shape)
    return _difference(session.run(None, {"input": shaped})[0], version.predict(x))


PROGRAM = """
#include "network.h"
#include <stdio.h>
int main(void)
{
    float input[RANDOM_NET_1_INPUTS], output[RANDOM_NET_1_CLASSES];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        random_net_1_predict(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }
    return 0;
}
"""


def _in_c(seed: int, folder: Path) -> float:
    version = random_version(seed)
    _exported(version, "c", folder)
    (folder / "main.c").write_text(PROGRAM)
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c99", "-O2"]
    command = ["gcc", *flags, "main.c", "-o", "main", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    x = random_inputs(version, ROWS)
    ran = subprocess.run([folder / "main"], input=x.tobytes(), capture_output=True, check=True)
    answers = np.frombuffer(ran.stdout, np.float32).reshape(len(x), -1)
    return _difference(answers, version.predict(x))


def _torch_activation(name: str) -> Any:
    from torch import nn

    return {
        "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "identity": nn.Identity(),
        "leaky_relu": nn.LeakyReLU(), "elu": nn.ELU(), "gelu": nn.GELU(), "silu": nn.SiLU(),
        "softmax": nn.Softmax(1),
    }[name]  # fmt: skip


def _in_torch(seed: int, folder: Path) -> float:
    import safetensors.torch
    import torch
    from torch import nn

    version = random_version(seed)
    tensors = safetensors.torch.load_file(_exported(version, "safetensors", folder))
    layers: list[Any] = []
    for i, name in enumerate(version.manifest.network.activations, 1):
        w = tensors[f"w{i}"]
        linear = nn.Linear(*w.shape)
        linear.load_state_dict({"weight": w.T, "bias": tensors[f"b{i}"]})
        layers += [linear, _torch_activation(name)]
    x = random_inputs(version, ROWS)
    with torch.no_grad():
        answers = nn.Sequential(*layers)(torch.from_numpy(x)).numpy()
    return _difference(answers, version.predict(x))


def _torch_network(seed: int) -> tuple[Any, tuple[str, ...], Array]:
    """Return a network of PyTorch with batch normalisation, its activations, and inputs."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    version = random_version(seed)
    network = version.manifest.network
    layers: list[Any] = [nn.Flatten()]
    for (inputs, units), name in zip(network.layer_shapes, network.activations, strict=True):
        layers.append(nn.Linear(inputs, units))
        if name not in ("softmax", "identity") and seed % 3:
            normalisation = nn.BatchNorm1d(units)
            nn.init.normal_(normalisation.running_mean)
            nn.init.uniform_(normalisation.running_var, 0.5, 2)
            nn.init.normal_(normalisation.weight)
            nn.init.normal_(normalisation.bias)
            layers.append(normalisation)
        layers.append(_torch_activation(name))
    return nn.Sequential(*layers).eval(), network.activations, random_inputs(version, ROWS)


def _from_torch(
    bring: Callable[..., ImportedNetwork], seed: int, folder: Path, **more: Any
) -> float:
    import torch

    module, activations, x = _torch_network(seed)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    return _difference(_answers(bring(module, activations, x, folder, **more), x), expected)


def _torch_safetensors(
    module: Any, activations: tuple[str, ...], x: Array, folder: Path
) -> ImportedNetwork:
    import safetensors.torch

    path = folder / "torch.safetensors"
    safetensors.torch.save_file(module.state_dict(), path)
    options = ImportOptions(activations=activations, orientation="units-inputs")
    return import_network(path, options)


def _torch_onnx(
    module: Any, activations: tuple[str, ...], x: Array, folder: Path, dynamo: bool
) -> ImportedNetwork:
    import torch

    path = folder / "torch.onnx"
    example = (torch.from_numpy(x[:2]),)
    rows: dict[str, Any] = {"dynamic_axes": {"x": {0: "rows"}}, "input_names": ["x"]}
    if dynamo:
        rows = {"dynamic_shapes": ({0: "rows"},)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, path, dynamo=dynamo, verbose=False, **rows)
    return import_network(path, ImportOptions())


def _from_sklearn(bring: Callable[..., ImportedNetwork], seed: int, folder: Path) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    rng = np.random.default_rng(seed)
    scaler = (StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler())[seed % 4]
    hidden = tuple(map(int, rng.integers(1, 40, seed % 5)))
    activation = ("relu", "tanh", "logistic", "identity")[rng.integers(4)]
    network = MLPClassifier(hidden, activation=activation, max_iter=2, random_state=seed)
    x = rng.normal(rng.normal(0, 3), rng.uniform(0.1, 10), (ROWS, int(rng.integers(2, 30))))
    y = rng.integers(0, 2 + seed % 6, ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline = make_pipeline(scaler, network).fit(x, y)
    x = x.astype(np.float32)
    return _difference(_answers(bring(pipeline, x, folder), x), pipeline.predict_proba(x))


def _skl2onnx(pipeline: Any, x: Array, folder: Path) -> ImportedNetwork:
    from skl2onnx import to_onnx

    path = folder / "sklearn.onnx"
    path.write_bytes(to_onnx(pipeline, x[:1]).SerializeToString())
    return import_network(path, ImportOptions())


def _skops(pipeline: Any, x: Array, folder: Path) -> ImportedNetwork:
    import skops.io

    path = folder / "sklearn.skops"
    skops.io.dump(pipeline, path)
    return import_network(path, ImportOptions())


def _foreign(folder: Path) -> dict[str, int]:
    """Count the .onnx files of a folder by what became of them."""
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.onnx")):
        try:
            network = import_network(path, ImportOptions()).network
            found[f"imported: {'-'.join(network.activations)}"] += 1
        except UnsupportedModel as error:
            found[_reason(str(error))] += 1
    return dict(found)


def _reason(text: str) -> str:
    """Return a refusal without the file's and the node's names, so that equal ones are counted."""
    _, _, reason = text.partition(": ")
    if reason.startswith("node "):
        reason = f"node ... ({reason.partition(' (')[2]}"
    return reason[:MAX_REASON]


if __name__ == "__main__":
    main()

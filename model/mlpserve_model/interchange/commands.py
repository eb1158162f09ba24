"""The flags of `import` and `export`, and what they do."""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlpserve_model.format.manifest import INPUT_KINDS
from mlpserve_model.interchange.exporting import FORMATS, export_network, write_export
from mlpserve_model.interchange.imported import output_of_logits
from mlpserve_model.interchange.importing import ImportOptions, import_network
from mlpserve_model.interchange.named_arrays import ORIENTATIONS
from mlpserve_model.interchange.publishing import publish_unjudged
from mlpserve_model.nn.activations import HIDDEN, OUTPUT
from mlpserve_model.process.arguments import PREFIX, SettingsParser, between
from mlpserve_model.process.children import safe_path
from mlpserve_model.process.flags import store_flags
from mlpserve_model.process.tables import plain, readable
from mlpserve_model.store.store import Store

__all__ = [
    "add_export",
    "add_import",
    "add_import_flags",
    "export_file",
    "has_holdout",
    "import_file",
    "import_options",
    "run_trainer",
]

WRONG_USAGE = 2
_HOLDOUT = f"{PREFIX}HOLDOUT"


def add_import(parser: SettingsParser) -> None:
    """Add the flags of `mlpserve-models import`."""
    add_import_flags(parser)
    parser.add_argument("--reason", help="reason to publish it without a holdout, for the history")
    parser.add_argument(
        "--holdout",
        type=Path,
        metavar="DATA",
        help="labelled data by which `mlpserve-trainer import`, whose flags then count, judges it",
    )


def has_holdout(given: Sequence[str]) -> bool:
    """Return True if these are the words of an import that the trainer's gate judges."""
    words = [word.partition("=")[0] for word in given]
    return given[:1] == ["import"] and ("--holdout" in words or bool(os.environ.get(_HOLDOUT)))


def run_trainer(given: Sequence[str]) -> int:
    """Run mlpserve-trainer with these words: evaluation and gate are its own.

    It is a program of its own, so that this package works without the trainer's.
    """
    with safe_path():
        command = [sys.executable, "-m", "mlpserve_trainer", *given]
        return subprocess.run(command, check=False).returncode


def import_file(store: Store, settings: Namespace) -> int:
    """Publish a network from a file as forced; with a holdout `run_trainer` has it judged."""
    if not (settings.reason or "").strip():
        print(
            "mlpserve-models: without --holdout nothing judges the network: "
            "give --holdout DATA, or --reason TEXT to publish it as forced",
            file=sys.stderr,
        )
        return WRONG_USAGE
    found = import_network(settings.file, import_options(settings))
    manifest = publish_unjudged(store, found, settings.file, settings.reason)
    if settings.json:
        print(json.dumps({"version": manifest.version, "verdict": manifest.gate.verdict,
                          "digest": manifest.digest, "notes": found.notes}))  # fmt: skip
        return 0
    network, signature = manifest.network, manifest.signature
    sizes = " -> ".join(map(str, network.layer_sizes))
    print(f"version {manifest.version} of {store.model}: {sizes}, {', '.join(network.activations)}")
    shape = "x".join(map(str, signature.input_shape))
    print(f"inputs: {signature.input_kind}, {shape}; classes: {readable(signature.class_names)}")
    for note in found.notes:
        print(plain(note))
    if network.output_activation == "identity":
        wanted = output_of_logits(network)
        print(f"it gives logits as they are: --output-activation {wanted} makes probabilities")
    flags = store_flags(settings.model, settings.store)
    print(
        "FORCED, and not served; to serve it:\n"
        f"  mlpserve models promote {manifest.version} --reason TEXT{flags}"
    )
    return 0


def add_export(parser: SettingsParser) -> None:
    """Add the flags of `mlpserve-models export`."""
    parser.add_argument("version", help="version: a number or an alias")
    parser.add_argument(
        "--format", choices=tuple(FORMATS), required=True, help="format of the file"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write", shown="MODEL-VERSION.ENDING"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")


def export_file(store: Store, version: int, settings: Namespace) -> int:
    """Write a version as a file of another format."""
    default = Path(f"{store.model}-{version}{FORMATS[settings.format]}")
    path = settings.output or default
    data = export_network(store.load(version), settings.format)
    write_export(path, data, settings.force)
    if settings.json:
        digest = hashlib.sha256(data).hexdigest()
        print(
            json.dumps(
                {"version": version, "file": str(path), "bytes": len(data), "sha256": digest}
            )
        )
    else:
        print(f"version {version} of {store.model} as {settings.format}: {plain(str(path))}")
    return 0


def add_import_flags(parser: SettingsParser) -> None:
    """Add the file to import, and what it may leave open."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="file to import: .onnx, .safetensors, .npz or .skops",
    )
    parser.add_argument(
        "--activations",
        type=_names(HIDDEN, OUTPUT),
        default=(),
        help="activations of a file of arrays, one for each layer, such as relu,relu,softmax",
        shown="the file's",
    )
    parser.add_argument(
        "--layers",
        type=_texts,
        default=(),
        help="names of the layers of a file of arrays, in their order",
        shown="the order of the names",
    )
    parser.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        help="axes of the weights of a file of arrays",
        shown="what fits together",
    )
    parser.add_argument(
        "--output-activation",
        choices=tuple(OUTPUT),
        help="activation that turns the logits of the file into probabilities",
        shown="none",
    )
    parser.add_argument(
        "--output-name", help="output of an ONNX model to import, where several differ"
    )
    parser.add_argument(
        "--input-shape",
        type=_sizes,
        default=(),
        help="shape of one input, such as 28,28",
        shown="the file's, or the number of inputs",
    )
    parser.add_argument(
        "--input-kind",
        choices=INPUT_KINDS,
        default="",
        help="kind of inputs: pixels from 0 to 1, as uint8 too, or real numbers",
        shown="the file's, or real",
    )
    parser.add_argument(
        "--input-maximum",
        type=between(1e-6, 255),
        default=0.0,
        help="raw value that stands for 1.0 in pixels",
        shown="the file's, or 255",
    )
    parser.add_argument(
        "--class-names",
        type=_texts,
        default=(),
        help="names of the classes, in the order of the outputs",
        shown="the file's, or 0,1,...",
    )


def import_options(settings: Namespace) -> ImportOptions:
    """Return what the flags of `add_import_flags` say."""
    names = [field.name for field in dataclasses.fields(ImportOptions)]
    return ImportOptions(**{name: getattr(settings, name) for name in names})


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _names(*known: Any) -> Callable[[str], tuple[str, ...]]:
    names = dict.fromkeys(name for group in known for name in group)

    def parse(text: str) -> tuple[str, ...]:
        given = _texts(text)
        unknown = [name for name in given if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"unknown activation {unknown[0]!r}: use {', '.join(names)}"
            )
        return given

    return parse


def _sizes(text: str) -> tuple[int, ...]:
    parts = _texts(text)
    if not all(part.isdecimal() and len(part) < 10 and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: expected sizes such as 28,28")
    return tuple(map(int, parts))

"""The manifest: the description of a version. docs/model-format.md is the norm.

It holds all that a reader needs to know about the weights. manifest_reader reads and checks it;
fields that this release does not know are kept.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from mlpserve_model.format.errors import CorruptVersion
from mlpserve_model.nn.network import Network

__all__ = [
    "FORMATS",
    "GOLDEN_FILE",
    "INPUT_KINDS",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "VERDICTS",
    "DatasetInfo",
    "Draft",
    "FileInfo",
    "InputValues",
    "Manifest",
    "Signature",
    "Verdict",
    "encode_manifest",
]

FORMATS = (1, 2)
# What format 1 can say: one of these for all hidden layers, and one of those at the output.
FORMAT_1_HIDDEN = ("relu", "sigmoid", "tanh")
FORMAT_1_OUTPUT = ("softmax", "sigmoid")
INPUT_KINDS = ("pixels", "real")
MODEL_FILE = "model.npz"
GOLDEN_FILE = "golden.npz"
MANIFEST_FILE = "manifest.json"
VERDICTS = ("PROMOTED", "REJECTED", "FORCED")

# Bounds on what a reader allocates, far above what this system is made for.
MAX_BYTES = 2**20
MAX_PARAMETERS = 2**26
MAX_LAYERS = 64
MAX_GOLDEN_ROWS = 1024

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """The digest (hex) and the size in bytes of one file."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """The data of a version: a name, "sha256:<hex>" of the data, and how it was split."""

    name: str
    digest: str
    split: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's verdict, one of VERDICTS, and its reasons."""

    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """What callers rely on: the inputs, and the classes in their order.

    Attributes:
        input_shape: The shape of one instance.
        input_maximum: The raw uint8 value that stands for 1.0; 1 for real inputs, which have none.
        class_names: One name for each class, in the order of the probabilities.
        input_kind: "pixels" (uint8 from 0 to the maximum, or float32 from 0 to 1) or "real" (any
            finite float32).

    """

    input_shape: tuple[int, ...]
    input_maximum: float
    class_names: tuple[str, ...]
    input_kind: str = "pixels"


@dataclass(frozen=True, slots=True)
class InputValues:
    """The kind of values that a version was trained on.

    Attributes:
        kind: "binary" (the two ends of the scale alone), "raw" (uint8, from 0 to the maximum) or
            "scaled" (floats from 0 to 1), all three of pixels, or "real". A later release may
            know others.
        low: The smallest value, in the scale of the training data.
        high: The largest value.
        means: Of real inputs the mean of each, if they are known: what explanations compare with.

    """

    kind: str
    low: float
    high: float
    means: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The description of a version that is not published yet.

    Attributes:
        model: The model's name.
        network: The layers and their activations.
        signature: The inputs and the classes.
        dataset: What it was trained on.
        recipe: How it was trained.
        seed: The seed of the training, at least 0.
        libraries: Names and versions of what trained it.
        metrics: Finite numbers, such as `accuracy` on the holdout.
        input_values: The values that it was trained on, None if it is not known.
        extra: More fields, as JSON has them: those that this release does not know.

    """

    model: str
    network: Network
    signature: Signature
    dataset: DatasetInfo
    recipe: Mapping[str, Any]
    seed: int
    libraries: Mapping[str, str]
    metrics: Mapping[str, float]
    input_values: InputValues | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Draft):
    """The description of a published version.

    Attributes:
        version: The version's number, at least 1.
        created: When it was published.
        files: Digest and size of every other file of the version, by name.
        golden_rows: The number of rows of the self-test.
        gate: The gate's verdict on it.
        document: manifest.json, as it was read.

    """

    version: int
    created: datetime
    files: Mapping[str, FileInfo]
    golden_rows: int
    gate: Verdict
    document: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """The weights' identity: "sha256:<hex>" of model.npz."""
        return f"sha256:{self.files[MODEL_FILE].sha256}"

    @property
    def own_digest(self) -> str:
        """The version's identity, with its number: "sha256:<hex>" of manifest.json."""
        return f"sha256:{hashlib.sha256(self.document).hexdigest()}"


def encode_manifest(
    draft: Draft,
    verdict: Verdict,
    files: Mapping[str, FileInfo],
    *,
    version: int,
    created: datetime,
    golden_rows: int,
) -> bytes:
    """Return manifest.json of a draft that is published as this version.

    It is in format 1 wherever that can say it, so that older servers follow as long as they can.

    Raises:
        CorruptVersion: JSON cannot hold it, such as a metric that is NaN.

    """
    number = _format_of(draft)
    document = {
        "format": number,
        "model": draft.model,
        "version": version,
        "created": created.isoformat(),
        "layer_sizes": draft.network.layer_sizes,
        **_activations(draft.network, number),
        "input": {
            **({"kind": draft.signature.input_kind} if number > 1 else {}),
            "shape": draft.signature.input_shape,
            "maximum": draft.signature.input_maximum,
            **({"values": _values(draft.input_values)} if draft.input_values else {}),
        },
        "class_names": draft.signature.class_names,
        "files": {name: asdict(info) for name, info in files.items()},
        "golden_rows": golden_rows,
        "dataset": asdict(draft.dataset),
        "recipe": dict(draft.recipe),
        "seed": draft.seed,
        "libraries": dict(draft.libraries),
        "metrics": dict(draft.metrics),
        "gate": asdict(verdict),
        **draft.extra,
    }
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptVersion(f"{MANIFEST_FILE} cannot be written: {error}") from error


def _values(values: InputValues) -> dict[str, object]:
    return {key: value for key, value in asdict(values).items() if value != ()}


def _format_of(draft: Draft) -> int:
    *hidden, output = draft.network.activations
    is_uniform = len(set(hidden)) <= 1 and set(hidden) <= set(FORMAT_1_HIDDEN)
    known = is_uniform and output in FORMAT_1_OUTPUT and draft.signature.input_kind == "pixels"
    return 1 if known else 2


def _activations(network: Network, number: int) -> dict[str, object]:
    if number > 1:
        return {"activations": network.activations}
    *hidden, output = network.activations
    # Without a hidden layer the field has no meaning, but has to be there.
    hidden_activation = hidden[0] if hidden else FORMAT_1_HIDDEN[0]
    return {"hidden_activation": hidden_activation, "output_activation": output}

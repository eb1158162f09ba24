"""Results of calls: frozen dataclasses with read-only NumPy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mlpserve_client._inputs import Instance


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Identifies the weights of an answer.

    Attributes:
        name: the model's name, such as `mnist`.
        version: the version's number, 1 or more.
        digest: `sha256:<hex>` of the weights' file.

    """

    name: str
    version: int
    digest: str


@dataclass(frozen=True)
class InputValues:
    """The kind of values that a version was trained on.

    Attributes:
        kind: `binary` (the two ends of the scale alone, such as booleans), `raw` (uint8, 0 to the
            maximum), `scaled` (floats from 0 to 1), `real` (any numbers), or `unknown` to this
            client.
        low: the smallest value, in the scale of the training data.
        high: the largest value.

    """

    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class ModelVersion:
    """A version of the model, in the state that the server has it in.

    Attributes:
        ref: name, number and digest.
        state: `LOADING`, `ACTIVE` (answers calls that select nothing), `STANDBY` (answers
            calls that select it), `REJECTED`, `FAILED`, or `UNKNOWN` to this client.
        reason: why it is in this state, as text.
        aliases: the names that point at it, such as `champion`.
        input_shape: shape of one instance, `(28, 28)` for MNIST.
        class_names: `class_names[label]` is the name of a label.
        created: when it was published, in UTC.
        metrics: measured when it was trained, `accuracy` among them.
        input_maximum: the raw value that stands for 1.0, 255 for MNIST; None for real inputs, and
            from a server that does not say it.
        input_values: the values that it was trained on; None where that is not known.
        input_kind: what it takes: `pixels` (uint8 from 0 to the maximum, or floats from 0 to 1),
            `real` (any finite floats), or `unknown` to this client.
        output_kind: what its answers are; see `Prediction`.

    """

    ref: ModelRef
    state: str
    reason: str
    aliases: tuple[str, ...]
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    created: datetime
    metrics: Mapping[str, float] = field(hash=False)
    input_maximum: float | None = None
    input_values: InputValues | None = None
    input_kind: str = "pixels"
    output_kind: str = "unknown"

    @property
    def version(self) -> int:
        """The version's number."""
        return self.ref.version


class ClassProbability(NamedTuple):
    """One class and how probable it is.

    Attributes:
        label: the class's number.
        name: the class's name.
        probability: 0 to 1.

    """

    label: int
    name: str
    probability: float

    def __repr__(self) -> str:
        return f"ClassProbability({self.label}, {self.name!r}, {self.probability:.4f})"


def is_audit(receipt: bytes) -> bool:
    """Return True if a receipt says that its answer was drawn for the audit."""
    return bool(receipt) and bool(receipt[0] & 1)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Prediction:
    """The answer for one instance.

    Attributes:
        label: number of the most probable class.
        name: its name.
        probability: its probability.
        probabilities: one for each class, `[classes]` float32, read-only.
        model: the version that gave the answer.
        class_names: the names of all classes, by label.
        receipt: what `report` names this answer by; empty unless it was requested.
        output_kind: what the probabilities are: a `distribution` (from 0 to 1, sum 1),
            `independent` (from 0 to 1 each, of sigmoid outputs), `values` (any finite values of
            a network without an output activation), or `unknown` where the server does not say it.

    """

    label: int
    name: str
    probability: float
    probabilities: npt.NDArray[np.float32]
    model: ModelRef
    class_names: tuple[str, ...]
    receipt: bytes = b""
    output_kind: str = "unknown"

    @property
    def audit(self) -> bool:
        """True if the server drew this answer for the audit: report its truth, right or wrong."""
        return is_audit(self.receipt)

    def top(self, k: int = 3) -> list[ClassProbability]:
        """Return the `k` most probable classes, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 0)]
        return [
            ClassProbability(int(i), self.class_names[i], float(self.probabilities[i]))
            for i in order
        ]

    # A dataclass would compare arrays with ==, which has no truth value.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prediction):
            return NotImplemented
        return (self.label, self.model, self.class_names) == (
            other.label,
            other.model,
            other.class_names,
        ) and np.array_equal(self.probabilities, other.probabilities)

    def __hash__(self) -> int:
        return hash((self.label, self.model))

    def __repr__(self) -> str:
        named = f"label={self.label}, name={self.name!r}, probability={self.probability:.4f}"
        return f"Prediction({named}, model={self.model.name!r} version {self.model.version})"


@dataclass(frozen=True, eq=False, slots=True)
class BatchPrediction(Sequence[Prediction]):
    """The answers for many instances, in order: a sequence of `Prediction`.

    Indexing and iterating create each `Prediction` on demand; a slice is a `BatchPrediction`
    that shares the arrays.

    Attributes:
        labels: number of the most probable class of each instance, `[n]` int32, read-only.
        probabilities: `[n, classes]` float32, read-only.
        model: the version that gave all the answers.
        class_names: the names of all classes, by label.
        receipts: what `report` names each answer by; empty unless they were requested.
        output_kind: what the probabilities are; see `Prediction`.

    """

    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    model: ModelRef
    class_names: tuple[str, ...]
    receipts: tuple[bytes, ...] = ()
    output_kind: str = "unknown"

    @property
    def names(self) -> list[str]:
        """The name of each instance's most probable class."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> "BatchPrediction": ...
    def __getitem__(self, index: int | slice) -> "Prediction | BatchPrediction":
        if isinstance(index, slice):
            return BatchPrediction(
                self.labels[index],
                self.probabilities[index],
                self.model,
                self.class_names,
                self.receipts[index],
                self.output_kind,
            )
        label = int(self.labels[index])
        row = self.probabilities[index]
        return Prediction(
            label,
            self.class_names[label],
            float(row[label]),
            row,
            self.model,
            self.class_names,
            self.receipts[index] if self.receipts else b"",
            self.output_kind,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchPrediction):
            return NotImplemented
        return (
            (self.model, self.class_names) == (other.model, other.class_names)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.probabilities, other.probabilities)
        )

    def __hash__(self) -> int:
        return hash((len(self), self.model))

    def __repr__(self) -> str:
        shown = ", ".join(str(label) for label in self.labels[:8])
        more = ", ..." if len(self) > 8 else ""
        return f"BatchPrediction(n={len(self)}, labels=[{shown}{more}], model={self.model})"


@dataclass(frozen=True, eq=False)
class Report:
    """What a caller knows about one answer: the true class, or whether the answer was right.

    Attributes:
        receipt: the answer's receipt, as bytes or in hex.
        class_name: name of the true class.
        right: whether the predicted class was the true one; give this or `class_name`.
        instance: what was classified, exactly as it was given to `predict`, for the model to learn
            from; None keeps it from the server.
        note: free text for people.

    """

    receipt: bytes | str
    class_name: str | None = None
    right: bool | None = None
    instance: "Instance | None" = None
    note: str = ""


@dataclass(frozen=True)
class ReportResult:
    """What became of some reports.

    Attributes:
        recorded: number of reports that the server has kept.
        known: number of reports whose receipts had been reported before.

    """

    recorded: int
    known: int

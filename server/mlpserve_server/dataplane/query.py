"""What passes between the contracts and the data plane: a query goes in, responses come out."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Manifest

__all__ = [
    "Codec",
    "Computed",
    "Decoder",
    "Float32",
    "Q",
    "Query",
    "Result",
    "Selection",
    "Tensor",
]

Float32: TypeAlias = NDArray[np.float32]


class Selection(NamedTuple):
    """The model and version that a caller asks for; what is None is up to the server."""

    version: int | None = None
    alias: str | None = None
    name: str | None = None


class Tensor(Protocol):
    """An unchecked array of a request.

    Attributes:
        dtype: a DataType of `mlpserve.v1`.
        shape: the dimensions of the array.
        data: its values, row-major and little-endian.
    """

    @property
    def dtype(self) -> int: ...  # noqa: D102  # described above
    @property
    def shape(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def data(self) -> bytes: ...  # noqa: D102


class Query(Tensor, Protocol):
    """A decoded request, whichever contract it came by, with the array of its instances.

    Attributes:
        selection: the model that is to answer.
        explains: whether the answer has attributions.
        receipts: whether each row's answer has a receipt.
    """

    @property
    def selection(self) -> Selection: ...  # noqa: D102  # described above
    @property
    def explains(self) -> bool: ...  # noqa: D102
    @property
    def receipts(self) -> bool: ...  # noqa: D102


class Computed(NamedTuple):
    """What a model gives for some rows.

    Attributes:
        probabilities: (rows, classes).
        attributions: (rows, inputs), of the predicted classes' logits compared with an input of
            zeros; None unless a query explains.
    """

    probabilities: Float32
    attributions: Float32 | None = None

    def rows(self, start: int, stop: int) -> "Computed":
        """Return what was computed for some of the rows."""
        chosen, why = slice(start, stop), self.attributions
        return Computed(self.probabilities[chosen], why if why is None else why[chosen])


Q = TypeVar("Q", bound=Query)


class Decoder(Protocol[Q]):
    """One request type of a contract: from bytes to queries.

    Attributes:
        field: the path of the array in the request, for error messages.
    """

    field: str

    def decode(self, request: bytes) -> Q:
        """Return the query in these bytes; raise InvalidInput if they are not one."""
        ...

    def check(self, query: Q, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput for an array that the model does not take; its values are not read."""
        ...


class Codec(Decoder[Q], Protocol[Q]):
    """A decoder, and the way back: from what a model gives to bytes."""

    def encode(self, computed: Computed, manifest: Manifest, queries: Sequence[Q]) -> list[bytes]:
        """Return a response for each query; their rows come in order."""
        ...


class Result(NamedTuple):
    """An answered query.

    Attributes:
        response: the bytes of the response.
        rows: instances in it.
        version: the version that gave it; 0 if none did.
        model: the name of its model; "" if none did.
    """

    response: bytes
    rows: int = 0
    version: int = 0
    model: str = ""

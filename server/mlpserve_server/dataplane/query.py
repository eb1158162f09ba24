"""What passes between the contracts and the data plane: a query goes in, responses come out."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Manifest

__all__ = ["Codec", "Float32", "Q", "Query", "Result", "Selection"]

Float32: TypeAlias = NDArray[np.float32]


class Selection(NamedTuple):
    """The model and version that a caller asks for; what is None is up to the server."""

    version: int | None = None
    alias: str | None = None
    name: str | None = None


class Query(Protocol):
    """A decoded prediction request, whichever contract it came by; its array is unchecked.

    Attributes:
        selection: the model that is to answer.
        dtype: a DataType of `mlpserve.v1`.
        shape: the dimensions of the array.
        data: its values, row-major and little-endian.
    """

    @property
    def selection(self) -> Selection: ...  # noqa: D102  # described above
    @property
    def dtype(self) -> int: ...  # noqa: D102
    @property
    def shape(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def data(self) -> bytes: ...  # noqa: D102


Q = TypeVar("Q", bound=Query)


class Codec(Protocol[Q]):
    """One request type of a contract: from bytes to queries, and from probabilities to bytes.

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

    def encode(
        self, probabilities: Float32, manifest: Manifest, queries: Sequence[Q]
    ) -> list[bytes]:
        """Return a response for each query; their rows (rows, classes) come in order."""
        ...


class Result(NamedTuple):
    """An answered query.

    Attributes:
        response: the bytes of the response.
        rows: instances in it.
        version: the version that gave it.
    """

    response: bytes
    rows: int
    version: int

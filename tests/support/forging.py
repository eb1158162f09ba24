"""A small store whose files are tampered with: the types of its fixtures, and a forger's work."""

import json
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import Manifest, Store

__all__ = ["EditManifest", "Golden", "Publish", "Rejection", "Seal", "forget_digests"]

Golden: TypeAlias = NDArray[np.float32]
# The message of CorruptVersion, which a reader must raise in little memory.
Rejection: TypeAlias = Callable[[Callable[[], object]], str]


class Publish(Protocol):
    """Publishes a version with weights of the given seed."""

    def __call__(
        self, seed: int = 1, verdict: str = "PROMOTED", files: dict[str, bytes] | None = None
    ) -> Manifest:
        """Return its manifest."""
        ...


class EditManifest(Protocol):
    """Rewrites a version's manifest by a function of its document."""

    def __call__(self, change: Callable[[dict[str, Any]], object], version: int = 1) -> None:
        """Change it in place, whatever the history says of it."""
        ...


class Seal(Protocol):
    """Replaces a file of a version, and its digest and size in the manifest."""

    def __call__(self, name: str, data: bytes, version: int = 1) -> None:
        """Write the file."""
        ...


def forget_digests(store: Store) -> None:
    """Make the history one of an older release, which does not know what was published."""
    history = store.folder / "history.jsonl"
    events = [json.loads(line) for line in history.read_text().splitlines()]
    for event in events:
        event.pop("manifest", None)
    history.write_text("".join(json.dumps(event) + "\n" for event in events))

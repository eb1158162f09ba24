"""Small made-up versions, published as a test needs them."""

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    initialise,
)

__all__ = ["DRAFT", "PROMOTED", "Publish", "publish_to"]

PROMOTED = Verdict("PROMOTED")
DRAFT = Draft(
    model="mnist",
    network=Network((12, 8, 3)),
    signature=Signature((3, 4), 16, ("circle", "square", "star")),
    dataset=DatasetInfo("made up", "sha256:0", "none"),
    recipe={},
    seed=0,
    libraries={},
    metrics={"accuracy": 0.9},
)


class Publish(Protocol):
    """Publishes a version with the seed's weights; makes it champion unless told otherwise."""

    def __call__(
        self, seed: int = 0, promote: bool = True, verdict: Verdict = PROMOTED, **changes: Any
    ) -> int:
        """Return its number; `changes` are to the draft."""
        ...


def publish_to(
    store: Store,
    seed: int = 0,
    promote: bool = True,
    verdict: Verdict = PROMOTED,
    draft: Draft = DRAFT,
    **changes: Any,
) -> int:
    """Publish a version with the seed's weights to a store, as Publish says."""
    draft, rng = replace(draft, model=store.model, **changes), np.random.default_rng(seed)
    golden = rng.random((4, draft.network.inputs), dtype=np.float32)
    version = store.publish(draft, verdict, initialise(draft.network, rng), golden).version
    if promote:
        with store.lock():
            expected = store.aliases().get(CHAMPION)
            store.move_alias(CHAMPION, version, expected=expected, event="promote", reason="test")
    return version

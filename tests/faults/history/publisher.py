"""A publisher that makes a new champion again and again, whatever happens to the store."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlpserve_model import (
    CHAMPION,
    AliasConflict,
    Store,
    StoredModel,
    StoreError,
    Verdict,
    initialise,
)
from tests.faults.history.records import Release
from tests.support.publishing import DRAFT, PROMOTED

__all__ = ["INPUTS", "REJECTED", "Publisher"]

INPUTS: NDArray[np.float32] = np.random.default_rng(7).random((16, 3, 4), dtype=np.float32)
REJECTED = Verdict("REJECTED", ("a test",))
_REJECTED_EVERY, _PRUNED_EVERY, _KEPT = 5, 10, 20


@dataclass
class Publisher:
    """Publishes versions and makes them champion; keeps what each of them answers.

    Attributes:
        store: where to.
        releases: what was published, by version.
        refused: publications that the store refused, with the reason.
        turn: held by who must not meet a publication.

    """

    store: Store
    releases: dict[int, Release] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)
    _seed: int = 0

    def publish(
        self, verdict: Verdict = PROMOTED, before_it_is_known: Callable[[int], object] = int
    ) -> int:
        """Publish a version, and make it champion if it passed; return its number.

        `before_it_is_known` is called with the number after the version is written, before
        anything refers to it.
        """
        with self.turn:
            self._seed += 1
            rng = np.random.default_rng(self._seed)
            weights = initialise(DRAFT.network, rng)
            golden = rng.random((4, DRAFT.network.inputs), dtype=np.float32)
            manifest = self.store.publish(DRAFT, verdict, weights, golden)
            version, rejected = manifest.version, verdict.verdict == "REJECTED"
            answers = StoredModel(manifest, weights).predict(INPUTS.reshape(len(INPUTS), -1))
            before_it_is_known(version)
            self.releases[version] = Release(version, manifest.digest, rejected, answers)
            if not rejected:
                self._promote(version)
                promoted = replace(self.releases[version], promoted=time.monotonic())
                self.releases[version] = promoted
            return version

    def run(self, seconds: float, done: threading.Event) -> None:
        """Publish every so many seconds until `done`; a store that refuses is tried again."""
        count = 0
        while not done.wait(seconds):
            count += 1
            try:
                self.publish(PROMOTED if count % _REJECTED_EVERY else REJECTED)
                if count % _PRUNED_EVERY == 0:
                    with self.turn:
                        self.store.prune(_KEPT)
            except (StoreError, AliasConflict) as error:
                self.refused.append(f"{time.monotonic():.3f} {error}")

    def _promote(self, version: int) -> None:
        with self.store.lock():
            expected = self.store.aliases().get(CHAMPION)
            self.store.move_alias(
                CHAMPION, version, expected=expected, event="promote", reason="test"
            )

"""Two versions whose answers a test writes into the instance, and reports about them."""

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import (
    CHALLENGER,
    CHAMPION,
    Layer,
    Network,
    Signature,
    Store,
    Verdict,
)
from mlpserve_model.store.evidence.receipts import Receipt, ReceiptKeys, row_bytes, weights_of
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from tests.support.publishing import DRAFT

__all__ = ["CLASSES", "KEYS", "League"]

CLASSES = ("ant", "bee", "cat")
KEYS = ReceiptKeys(["k" * 40])


class League:
    """Versions 1 and 2 of a model: 1 answers the class of inputs 0 to 2, 2 that of inputs 3 to 5.

    So an instance says what each of them answers. Version 1 is champion and 2 challenger.
    """

    def __init__(self, folder: Path) -> None:
        self.store, self.place = Store(folder / "store", "zoo"), FeedbackPlace(folder / "feedback")
        self._serial = itertools.count()
        self.publish(0)
        self.publish(3)
        self.point(CHAMPION, 1)
        self.point(CHALLENGER, 2)

    def publish(self, first: int) -> int:
        """Publish a version that answers the class of three inputs, of which this is the first."""
        network, signature = Network((6, 3)), Signature((6,), 1, CLASSES)
        draft = replace(DRAFT, model="zoo", network=network, signature=signature)
        w = np.zeros((6, 3), np.float32)
        w[first : first + 3] = 9 * np.eye(3)
        weights = (Layer(w, np.zeros(3, np.float32)),)
        golden = np.zeros((1, 6), np.float32)
        return self.store.publish(draft, Verdict("PROMOTED"), weights, golden).version

    def point(self, alias: str, version: int) -> None:
        before = self.store.aliases().get(alias)
        self.store.move_alias(alias, version, expected=before, event="promote", reason="a test")

    def report(
        self, champion: str, rival: str, truth: str | None, keys: ReceiptKeys = KEYS, **more: Any
    ) -> ReportRecord:
        """Return a report of an audited answer of version 1; `truth` None: of "right" alone."""
        serial, label = next(self._serial), CLASSES.index(champion)
        instance = _instance(label, CLASSES.index(rival), more.pop("row", serial))
        (data,) = row_bytes(instance[None], real=False)
        weights = weights_of(self.store.manifest(1).digest)
        receipt = Receipt(
            audit=more.pop("audit", True),
            version=1,
            answered_at=more.pop("answered_at", int(time.time())),
            label=label,
            confidence=1.0,
            row_hash=keys.hash_row(data),
            weights=weights,
            serial=serial,
        )
        signed = keys.sign(receipt, "zoo").hex()
        fields: dict[str, Any] = {
            "tag": signed[-32:],
            "model": "zoo",
            "version": 1,
            "weights": weights.hex(),
            "answered_at": receipt.answered_at,
            "label": label,
            "confidence": 1.0,
            "audit": receipt.audit,
            "row_hash": receipt.row_hash.hex(),
            "truth": truth,
            "right": truth == champion,
            "source": "",
            "reported_at": receipt.answered_at + 1 + serial / 1000,
            "instance": instance,
            "receipt": signed,
        }
        return ReportRecord(**fields | more)

    def add(
        self, count: int, champion: str, rival: str, truth: str | None, **more: Any
    ) -> list[ReportRecord]:
        """Record as many such reports, each of a row of its own."""
        reports = [self.report(champion, rival, truth, **more) for _ in range(count)]
        assert all(map(self.place.record, reports))
        return reports


def _instance(champion: int, rival: int, row: int) -> npt.NDArray[np.float32]:
    """An instance of these two answers; another one for each row, by values too low to answer."""
    instance = np.zeros(6, np.float32)
    free = [place for place in range(6) if place not in (champion, 3 + rival)]
    instance[free] = [row // 100**digit % 100 / 255 for digit in range(len(free))]
    instance[[champion, 3 + rival]] = 1
    return instance

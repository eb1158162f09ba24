"""A crowd of callers for learn.py: they send digits, and report the truth; one of them does not."""

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mlpserve_client import Client, Report

__all__ = ["HONEST", "LIAR", "Crowd", "Images", "Labels"]

HONEST, LIAR = ("ann", "bob", "cem"), "mallory"
BATCH = 40
DEAD_LINE = 3  # of the images, once the inputs have shifted
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Crowd:
    """Callers, each with a token of its own, who know the truth of what they send.

    Args:
        tokens: Their tokens, the liar's last.
        addresses: The servers.
        images: What they send, (n, 8, 8).
        labels: What it truly is, (n,).
    """

    def __init__(
        self,
        tokens: Sequence[str],
        addresses: Sequence[str],
        images: Images,
        labels: npt.NDArray[np.int64],
    ) -> None:
        self._images, self._labels, self._rng = images, labels, np.random.default_rng(1)
        self._tokens = dict(zip((*HONEST, LIAR), tokens, strict=True))
        self._clients = {
            (name, address): Client(address, token=token, timeout=20)
            for name, token in self._tokens.items()
            for address in addresses
        }
        self._addresses = addresses
        self.is_shifted = False
        self.corrected = 0
        self._reset()

    def __enter__(self) -> "Crowd":
        for client in self._clients.values():
            client.wait_until_ready(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    @property
    def accuracy(self) -> float:
        """The share of right answers in the last phase."""
        return self._right / max(self.answers, 1)

    def call_until(
        self, condition: Callable[[], bool], name: str | None, seconds: float = 60
    ) -> None:
        """Send batches until the condition holds; then print the accuracy under this name.

        Raises TimeoutError if it does not within so many seconds.
        """
        self._reset()
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the demo waits for something that does not happen")
            self._send()
            time.sleep(0.1)  # a server samples 20 rows a second for drift
        if name:
            versions = ", ".join(map(str, sorted(self.versions)))
            print(f"   {name}: {self.accuracy:.1%} of {self.answers} right, by version {versions}")

    def confusion(self) -> str:
        """Return the mistake that was made most often."""
        (truth, answer), count = max(self._mistakes.items(), key=lambda item: item[1])
        return f"a {truth} is taken for a {answer}: {count} times"

    def lie(self, count: int) -> int:
        """Let the liar report fours as nines; return how many of them."""
        fours = np.flatnonzero(self._labels == 4)
        images = self._scanned(self._rng.choice(fours, count))
        client = self._clients[LIAR, self._addresses[0]]
        receipts = client.predict_batch(images, receipts=True).receipts
        reports = [Report(r, "9", None, i) for r, i in zip(receipts, images, strict=True)]
        return client.report_batch(reports).recorded

    def fingerprint(self, name: str) -> str:
        """Return what reports have of a caller's token."""
        return hashlib.sha256(self._tokens[name].encode()).hexdigest()[:16]

    def _reset(self) -> None:
        self.answers = self._right = 0
        self.versions: set[int] = set()
        self._mistakes: dict[tuple[str, str], int] = {}

    def _send(self) -> None:
        """Send some images through one caller; a second one meets the mistakes as well."""
        rows = self._rng.integers(0, len(self._images), BATCH)
        images, truths = self._scanned(rows), [str(label) for label in self._labels[rows]]
        one, other = self._rng.choice(HONEST, 2, replace=False)
        names = self._classify(one, images, truths)
        wrong = [i for i, name in enumerate(names) if name != truths[i]]
        if wrong:
            self._classify(other, images[wrong], [truths[i] for i in wrong])
        self.answers += BATCH
        self._right += BATCH - len(wrong)
        for i in wrong:
            pair = truths[i], names[i]
            self._mistakes[pair] = self._mistakes.get(pair, 0) + 1

    def _classify(self, caller: str, images: Images, truths: Sequence[str]) -> list[str]:
        """Return the answers, and report the audited ones, and the mistakes among the others."""
        client = self._clients[caller, self._rng.choice(self._addresses)]
        answers = client.predict_batch(images, receipts=True)
        self.versions.add(answers.model.version)
        reports = []
        for image, truth, answer in zip(images, truths, answers, strict=True):
            if answer.audit or answer.name != truth:
                reports.append(Report(answer.receipt, truth, None, image))
                self.corrected += not answer.audit
        if reports:
            client.report_batch(reports)
        return [answer.name for answer in answers]

    def _scanned(self, rows: npt.NDArray[np.int64]) -> Images:
        """Return images as the scanner gives them: with a little noise, and a dead line."""
        noise = self._rng.integers(-1, 2, (len(rows), 8, 8))
        noisy = np.clip(self._images[rows].astype(np.int64) + noise, 0, 16)
        images: Images = noisy.astype(np.uint8)
        if self.is_shifted:
            images[:, DEAD_LINE] = 0
        return images

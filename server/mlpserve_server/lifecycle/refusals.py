"""Versions that could not be loaded: why, and until when they are held back."""

import logging
import time
from collections.abc import Hashable
from typing import NamedTuple

__all__ = ["Refusals"]

# A damaged version is tried again after this time, if none of its files changes before.
_RETRY_SECONDS = 10.0

log = logging.getLogger(__name__)


class _Refusal(NamedTuple):
    reason: str
    manifest: str | None  # the digest of the manifest that it is about, if it could be read
    retry_at: float
    contents: Hashable  # the stamp of its files, None if that could not be had


class Refusals:
    """The versions of a model that were refused at the last attempt; for any thread."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._refused: dict[int, _Refusal] = {}

    def add(
        self,
        version: int,
        reason: str,
        manifest: str | None = None,
        hold_back: bool = True,
        contents: Hashable = None,
    ) -> None:
        """Remember why a version was refused, and log it unless the last reason was the same.

        Args:
            version: The version.
            reason: Why it was refused.
            manifest: The digest of its manifest, if that could be read.
            hold_back: Whether it is not tried again for a while.
            contents: The stamp of its files, as they were when it was refused.

        """
        known = self._refused.get(version)
        retry_at = time.monotonic() + _RETRY_SECONDS if hold_back else 0.0
        self._refused[version] = _Refusal(reason, manifest, retry_at, contents)
        if known is None or known.reason != reason:
            fields = {"model": self._model, "version": version, "reason": reason}
            log.error("version refused", extra=fields)

    def drop(self, version: int) -> None:
        """Remove a version: it could be loaded."""
        self._refused.pop(version, None)

    def retry_all(self) -> None:
        """Hold no version back any longer; the reasons are kept."""
        for version, refusal in list(self._refused.items()):
            self._refused[version] = refusal._replace(retry_at=0.0)

    def retry_if_changed(self, version: int, contents: Hashable) -> None:
        """Hold a version back no longer if its files have changed since it was refused."""
        refusal = self._refused.get(version)
        if refusal and refusal.contents != contents:
            self._refused[version] = refusal._replace(retry_at=0.0)

    def held_back(self, version: int) -> str:
        """Return why a version is not tried again yet; "" if it may be tried."""
        refusal = self._refused.get(version)
        return refusal.reason if refusal and time.monotonic() < refusal.retry_at else ""

    def of(self, version: int, manifest: str) -> str:
        """Return why the version with this digest of its manifest was refused, if it was."""
        refusal = self._refused.get(version)
        return refusal.reason if refusal and refusal.manifest == manifest else ""

    def for_callers(self, version: int) -> str:
        """Return, for callers, why a version was refused; "" if it was not."""
        refusal = self._refused.get(version)
        if refusal is None:
            return ""
        # Without a manifest the reason is that of the file system, with a path.
        reason = refusal.reason if refusal.manifest else "it cannot be read"
        return f"cannot answer: version {version}: {reason}"

"""The results of scheduled runs, in the log and in the store's history."""

import logging
from dataclasses import asdict

from mlpserve_model import Store, StoreError
from mlpserve_trainer.schedule.worker import RunResult

__all__ = ["RunHistory"]

logger = logging.getLogger(__name__)


class RunHistory:
    """Logs each result, and records it in the history of a model's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, ended: RunResult) -> None:
        """Log and record a result; a store that cannot be written is logged."""
        facts = {key: value for key, value in asdict(ended).items() if value is not None}
        if ended.status in ("failed", "timed_out"):
            logger.error("run ended", extra=facts)
        else:
            logger.info("run ended", extra=facts)
        facts = {"status": ended.status, "exit_code": ended.exit_code, "seconds": ended.seconds}
        try:
            self._store.record("run", ended.version, ended.reason, **facts)
        except StoreError as error:
            logger.warning("the run is not in the history", extra={"reason": str(error)})

    def last_was_interrupted(self) -> bool:
        """Return True if the last recorded run was interrupted, and log that it is resumed."""
        try:
            runs = [e for e in self._store.history() if e.get("event") == "run"]
        except StoreError as error:
            logger.warning("the history cannot be read", extra={"reason": str(error)})
            return False
        interrupted = bool(runs) and runs[-1].get("status") == "interrupted"
        if interrupted:
            logger.info("resuming the interrupted run")
        return interrupted

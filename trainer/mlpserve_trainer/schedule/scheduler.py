"""The schedule: APScheduler says when, one run at a time, and a signal ends it."""

import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from mlpserve_model import Store, StoreError
from mlpserve_model.process.follower import Guard
from mlpserve_model.process.signals import signals_as_bytes
from mlpserve_trainer.interrupts import STOP_SIGNALS
from mlpserve_trainer.schedule.metrics import Metrics
from mlpserve_trainer.schedule.worker import Job, Run, RunResult

__all__ = ["Health", "Schedule"]

# A run that is asked to end finishes at most the report of its version before it does.
LAST_SECONDS = 60.0
# Clocks are set and machines sleep, which no waiting thread notices.
LOOK_AGAIN_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Health:
    """Whether the schedule is well, and the facts that say so."""

    healthy: bool
    facts: dict[str, Any]


class Schedule:
    """Runs a job whenever a trigger says so.

    * `trigger`: APScheduler's, see `timetable`.
    * `longest`: seconds after which a run has hung and is ended.

    A run that comes due during another waits for it; however many come due, one does. How each
    ended goes to the log, the store's history and the metrics.
    """

    def __init__(self, job: Job, trigger: Any, longest: float, metrics: Metrics) -> None:
        self._job, self._longest, self._metrics = job, longest, metrics
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._last: RunResult | None = None
        self._stopping = False
        self._guard = Guard("schedule", metrics.count_failure)
        self._status = "ok"
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        # One thread that runs, and a second run of the job that waits for it: what comes due
        # beyond that is dropped, and what was missed comes once, however late.
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(1)}
        )
        self._entry = self._scheduler.add_job(
            lambda: self._guard.run(self._do),
            trigger,
            max_instances=2,
            coalesce=True,
            misfire_grace_time=None,
        )
        metrics.follow(
            running=lambda: float(self._run is not None),
            next_run=lambda: due.timestamp() if (due := self._next()) else 0.0,
            healthy=lambda: float(self.health().healthy),
        )

    def run_forever(self, run_now: bool) -> int:
        """Run until SIGTERM or Ctrl-C; return the exit code.

        The first signal interrupts a run, which leaves its checkpoint, and waits for its end; the
        second ends everything at once. With `run_now` the first run is not waited for.
        """
        with signals_as_bytes(STOP_SIGNALS) as signals:
            self._scheduler.start()
            if run_now or self._was_interrupted():
                self._entry.modify(next_run_time=_now())
            else:
                self._announce()
            while _taken(signals, LOOK_AGAIN_SECONDS) is None:
                self._guard.run(self._look)
            return self._stop(signals)

    def health(self) -> Health:
        """Look at itself: not healthy when it missed a time, or a run has hung."""
        run, last, due = self._run, self._last, self._next()
        seconds = run.seconds if run else None
        trouble = None
        if due and not self._stopping and due < _now() - timedelta(seconds=LAST_SECONDS):
            trouble = "the schedule stands still"
        elif seconds is not None and seconds > self._longest + 2 * LAST_SECONDS:
            trouble = "a run has hung and cannot be ended"
        elif last and last.status == "timed_out":
            trouble = "the last run hung"
        facts = {
            "status": trouble or "ok",
            "next_run": due and due.isoformat(timespec="seconds"),
            "running_seconds": seconds and round(seconds, 1),
            "last_run": last and asdict(last),
        }
        return Health(trouble is None, facts)

    def _look(self) -> None:
        """Wake the scheduler, and log it when the schedule is not well any more."""
        self._scheduler.wakeup()
        before, self._status = self._status, self.health().facts["status"]
        if self._status not in ("ok", before):
            logger.error("the schedule is not healthy", extra={"status": self._status})

    def _do(self) -> None:
        """Run once, in the scheduler's thread."""
        with self._lock:
            if self._stopping:
                return
            logger.info("run started")
            self._run = Run(self._job)
        try:
            self._last = ended = self._watched(self._run)
            self._metrics.count(ended, time.time())
            self._tell(ended)
            self._record(ended)
        finally:
            self._run = None
        if not self._stopping:
            self._announce()

    def _watched(self, run: Run) -> RunResult:
        if run.wait(self._longest):
            return run.ended()
        logger.error("ending a run that takes too long", extra={"seconds": self._longest})
        run.interrupt()
        if not run.wait(LAST_SECONDS):
            run.kill()
        ended = run.ended()
        if ended.version is not None:  # it was done after all
            return ended
        return replace(ended, status="timed_out", reason=f"took longer than {self._longest:g} s")

    def _tell(self, ended: RunResult) -> None:
        bad = ended.status in ("failed", "timed_out")
        facts = {key: value for key, value in asdict(ended).items() if value is not None}
        if bad:
            logger.error("run ended", extra=facts)
        else:
            logger.info("run ended", extra=facts)

    def _record(self, ended: RunResult) -> None:
        facts = {"status": ended.status, "exit_code": ended.exit_code, "seconds": ended.seconds}
        try:
            self._store().record("run", ended.version, ended.reason, **facts)
        except StoreError as error:
            logger.warning("the run is not in the history", extra={"reason": str(error)})

    def _was_interrupted(self) -> bool:
        try:
            runs = [e for e in self._store().history() if e.get("event") == "run"]
        except StoreError as error:
            logger.warning("the history cannot be read", extra={"reason": str(error)})
            return False
        interrupted = bool(runs) and runs[-1].get("status") == "interrupted"
        if interrupted:
            logger.info("resuming the interrupted run")
        return interrupted

    def _store(self) -> Store:
        return Store(self._job.settings.store, self._job.settings.model)

    def _announce(self) -> None:
        due = self._next()
        if due is not None:
            wait = round((due - _now()).total_seconds(), 1)
            at = due.isoformat(timespec="seconds")
            logger.info("next run", extra={"at": at, "in_seconds": max(wait, 0.0)})

    def _next(self) -> datetime | None:
        due: datetime | None = getattr(self._entry, "next_run_time", None)
        return due

    def _stop(self, signals: socket.socket) -> int:
        with self._lock:
            self._stopping = True
            run = self._run
        self._scheduler.shutdown(wait=False)
        if run:
            logger.info("stopping: interrupting the run, a second signal ends it at once")
            run.interrupt()
        while self._run is not None:
            number = _taken(signals, 0.1)
            if number is not None and run:
                run.kill()
                # At once: nothing may wait for what does not end.
                os._exit(128 + number)
        logger.info("stopped")
        return 0


def _taken(signals: socket.socket, seconds: float) -> int | None:
    signals.settimeout(seconds)
    try:
        return signals.recv(1)[0]
    except TimeoutError:
        return None


def _now() -> datetime:
    return datetime.now().astimezone()

"""The schedule: runs at the times of an APScheduler trigger, one at a time, until a signal."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from mlpserve_model import Store
from mlpserve_model.process.follower import Guard
from mlpserve_model.process.interrupts import STOP_SIGNALS
from mlpserve_model.process.signals import signals_as_bytes
from mlpserve_trainer.schedule.history import RunHistory
from mlpserve_trainer.schedule.metrics import Metrics
from mlpserve_trainer.schedule.worker import Job, Run, RunResult

__all__ = ["Health", "Schedule"]

# An interrupted run may finish the report and the publication of its version.
LAST_SECONDS = 60.0
# A waiting thread does not notice that the clock was set or that the machine slept.
CHECK_SECONDS = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Health:
    """Whether the schedule is healthy, and the facts behind it."""

    healthy: bool
    facts: dict[str, Any]


class Schedule:
    """Runs a job whenever a trigger fires.

    A run that is due during another one waits for it; of several that are due, one is kept. The
    result of each run goes to the log, the store's history and the metrics.

    Args:
        job: What each run does.
        trigger: APScheduler's trigger, see `timetable`.
        run_timeout: Seconds after which a run is ended.
        metrics: Where runs are counted.
    """

    def __init__(self, job: Job, trigger: Any, run_timeout: float, metrics: Metrics) -> None:
        self._job, self._run_timeout, self._metrics = job, run_timeout, metrics
        self._runs = RunHistory(Store(job.settings.store, job.settings.model))
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._last: RunResult | None = None
        self._stopping = False
        self._guard = Guard("schedule", metrics.count_failure)
        self._status = "ok"
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        # One thread runs the job, and one more due run may wait for it. Later ones are dropped,
        # and missed ones are made up for once, however late.
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

    def repeat(self, act: Callable[[], object], seconds: float) -> None:
        """Call something else at an interval, beside the runs; its failures are logged."""
        guard = Guard("judge", self._metrics.count_failure)
        self._scheduler.add_executor(ThreadPoolExecutor(1), "beside")
        interval = IntervalTrigger(seconds=max(1, round(seconds)))
        self._scheduler.add_job(lambda: guard.run(act), interval, executor="beside")

    def run_forever(self, run_now: bool) -> int:
        """Run until SIGTERM or Ctrl-C; return the exit code.

        The first signal interrupts the current run, which leaves its checkpoint, and waits for its
        end. The second signal ends the process at once.

        Args:
            run_now: Whether to start the first run at once.
        """
        with signals_as_bytes(STOP_SIGNALS) as signals:
            self._scheduler.start()
            if run_now or self._runs.last_was_interrupted():
                self._entry.modify(next_run_time=_now())
            else:
                self._announce()
            while _taken(signals, CHECK_SECONDS) is None:
                self._guard.run(self._check_health)
            return self._stop(signals)

    def health(self) -> Health:
        """Return the health: bad if a due run has not started, or a run hangs."""
        run, last, due = self._run, self._last, self._next()
        seconds = run.seconds if run else None
        trouble = None
        if due and not self._stopping and due < _now() - timedelta(seconds=LAST_SECONDS):
            trouble = "the schedule stands still"
        elif seconds is not None and seconds > self._run_timeout + 2 * LAST_SECONDS:
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

    def _check_health(self) -> None:
        """Wake the scheduler, and log a change for the worse of its health."""
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
            self._runs.add(ended)
        finally:
            self._run = None
        if not self._stopping:
            self._announce()

    def _watched(self, run: Run) -> RunResult:
        if run.wait(self._run_timeout):
            return run.ended()
        logger.error("ending a run that takes too long", extra={"seconds": self._run_timeout})
        run.interrupt()
        if not run.wait(LAST_SECONDS):
            run.kill()
        ended = run.ended()
        if ended.version is not None:  # it had published before it was interrupted
            return ended
        return replace(
            ended, status="timed_out", reason=f"took longer than {self._run_timeout:g} s"
        )

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
                # Without cleaning up: the run may never end.
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

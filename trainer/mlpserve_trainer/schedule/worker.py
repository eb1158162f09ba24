"""One training in a process of its own.

A process, not a thread: what a training holds is given back to the last byte when it ends, one
that crashes or is killed for its memory does not take the schedule with it, and one that hangs
can be ended.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context, parent_process
from typing import Any

from mlpserve_model import StoreError
from mlpserve_model.process.children import safe_path
from mlpserve_model.process.interrupts import STOP_SIGNALS, block_signals, interruptible_once
from mlpserve_model.process.log import set_up
from mlpserve_trainer.errors import CheckpointDamaged, TrainerError, UsageError
from mlpserve_trainer.training.pipeline import Outcome, TrainSettings, train

__all__ = ["Job", "Run", "RunResult"]

logger = logging.getLogger(__name__)

MAX_REASON = 1000


@dataclass(frozen=True)
class Job:
    """One training, and the format of its log and its result."""

    settings: TrainSettings
    log_format: str = "human"
    log_level: str = "info"
    as_json: bool = False


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    * `status`: promoted, forced, rejected, unchanged, failed, interrupted or timed_out.
    * `exit_code`: as of `mlpserve-trainer train`; 128 and the signal where one ended it.
    * `seconds`: from its start to its end.
    * `reason`: in words.
    * `version`: what it published, or has nothing to add to; None for neither.
    """

    status: str
    exit_code: int
    seconds: float
    reason: str
    version: int | None = None


class Run:
    """A training in a process of its own."""

    def __init__(self, job: Job) -> None:
        # A spawned process inherits no thread, lock or signal handler of this one.
        context = get_context("spawn")
        self._answers, answers = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(job, answers), name="training")
        self._started = time.monotonic()
        with block_signals(), safe_path():
            self._process.start()
        answers.close()

    @property
    def seconds(self) -> float:
        """The seconds since its start."""
        return time.monotonic() - self._started

    def wait(self, seconds: float) -> bool:
        """Return True if it ends within so many seconds."""
        return bool(connection.wait([self._process.sentinel], seconds))

    def interrupt(self) -> None:
        """Interrupt it as Ctrl-C does; its checkpoint stays."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def ended(self) -> RunResult:
        """Wait for its end and return its result."""
        self._process.join()
        code = self._process.exitcode or 0
        exit_code = code if code >= 0 else 128 - code
        seconds = round(self.seconds, 3)
        return RunResult(exit_code=exit_code, seconds=seconds, **(self._answer() or _cause(code)))

    def _answer(self) -> dict[str, Any] | None:
        with self._answers:
            try:
                return self._answers.recv() if self._answers.poll() else None
            except (EOFError, OSError):  # it died before, or while, it answered
                return None


def _cause(code: int) -> dict[str, Any]:
    """Return the result of a process that ended without sending one."""
    if code >= 0:
        return {"status": "failed", "reason": f"ended with exit code {code} and no answer"}
    name = signal.Signals(-code).name
    hint = ", possibly out of memory" if name == "SIGKILL" else ""
    return {"status": "failed", "reason": f"killed by {name}{hint}"}


def _work(job: Job, answers: Any) -> None:
    """Train in this process and send the result through the pipe."""
    set_up(job.log_format, job.log_level)
    try:
        interruptible_once()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        code, facts = _train(job)
    except KeyboardInterrupt as interrupt:
        hint = "; the next run goes on from its checkpoint" if interrupt.args else ""
        code, facts = 130, {"status": "interrupted", "reason": f"interrupted{hint}"}
    with suppress(OSError):  # where the schedule has died, nobody asks
        answers.send(facts)
    sys.exit(code)


def _end_with_parent() -> None:
    """Interrupt this process when the schedule dies, which would leave it running unobserved."""
    parent = parent_process()
    assert parent
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGINT)


def _train(job: Job) -> tuple[int, dict[str, Any]]:
    try:
        outcome = _resumed(job.settings)
    except UsageError as error:
        return 2, _failed(str(error))
    except (TrainerError, StoreError, MemoryError) as error:
        return 1, _failed(str(error) or type(error).__name__)
    except Exception as error:  # a fault of ours ends this run, not the schedule
        logger.exception("training failed")
        return 1, _failed(repr(error))
    if job.as_json:
        print(json.dumps(outcome.facts()), flush=True)
    reason = "; ".join(outcome.reasons)[:MAX_REASON]
    facts = {"status": outcome.verdict.lower(), "reason": reason, "version": outcome.version}
    return 3 if outcome.verdict == "REJECTED" else 0, facts


def _resumed(settings: TrainSettings) -> Outcome:
    # Most runs find none: asked to resume, each would log that.
    folder = settings.checkpoint_dir
    resume = folder is not None and any(folder.glob(f"{settings.model}-*.npz"))
    try:
        return train(replace(settings, resume=resume))
    except CheckpointDamaged as error:
        # Nobody is there to remove it; training from the start writes a new one over it.
        logger.warning("training from the start", extra={"reason": str(error)})
        return train(replace(settings, resume=False))


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason[:MAX_REASON]}

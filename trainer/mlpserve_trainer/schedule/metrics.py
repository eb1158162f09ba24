"""The metrics of scheduled runs, for Prometheus."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

from mlpserve_trainer.judge.decision import ACTIONS, Decision
from mlpserve_trainer.schedule.worker import RunResult

__all__ = ["Metrics"]

STATUSES = (
    *("promoted", "forced", "rejected", "unchanged"),
    *("failed", "interrupted", "timed_out"),
)
NOT_FAILED = STATUSES[:4]


class Metrics:
    """The metrics of the schedule, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"mlpserve_trainer_{name}", text, registry=self.registry)

        self._runs = Counter(
            "mlpserve_trainer_runs", "Runs that ended.", ("status",), registry=self.registry
        )
        self._durations = Summary(
            "mlpserve_trainer_run_duration_seconds",
            "How long runs took.",
            ("status",),
            registry=self.registry,
        )
        for status in STATUSES:  # a rate needs the zero before the first one
            self._runs.labels(status)
            self._durations.labels(status)
        self._failures = Counter(
            "mlpserve_trainer_schedule_failures",
            "Faults of the schedule itself: no process for a run, no note of how one ended.",
            registry=self.registry,
        )
        self._decisions = Counter(
            "mlpserve_trainer_decisions",
            "What the judge has done on evidence.",
            ("action",),
            registry=self.registry,
        )
        for action in ACTIONS:
            self._decisions.labels(action)
        self._last_decision = gauge(
            "last_decision_timestamp_seconds", "When the judge last acted; 0 before it has."
        )
        self._last_end = gauge("last_run_timestamp_seconds", "When a run last ended.")
        self._last_good = gauge(
            "last_success_timestamp_seconds", "When a run last ended that did not fail."
        )
        self._last_seconds = gauge("last_run_duration_seconds", "How long the last run took.")
        self._last_code = gauge("last_run_exit_code", "The exit code of the last run.")
        self._version = gauge("version", "The version that the last run published or kept.")
        self._followed = {
            "running": gauge("running", "1 while a run is going on."),
            "next_run": gauge("next_run_timestamp_seconds", "When the next run is due."),
            "healthy": gauge("healthy", "1 while the health endpoint says so."),
        }

    def follow(self, **gauges: Callable[[], float]) -> None:
        """Call `running`, `next_run` and `healthy` whenever the metrics are read."""
        for name, ask in gauges.items():
            self._followed[name].set_function(ask)

    def count_failure(self) -> None:
        """Count a fault of the schedule itself, which continues."""
        self._failures.inc()

    def count(self, ended: RunResult, now: float) -> None:
        """Count a run that ended at `now`, in seconds since 1970."""
        self._runs.labels(ended.status).inc()
        self._durations.labels(ended.status).observe(ended.seconds)
        self._last_end.set(now)
        self._last_seconds.set(ended.seconds)
        self._last_code.set(ended.exit_code)
        if ended.status in NOT_FAILED:
            self._last_good.set(now)
        if ended.version is not None:
            self._version.set(ended.version)

    def count_decisions(self, decisions: Iterable[Decision], now: float) -> None:
        """Count the decisions that were carried out at `now`, in seconds since 1970."""
        for decision in decisions:
            if decision.is_done:
                self._decisions.labels(decision.action).inc()
                self._last_decision.set(now)

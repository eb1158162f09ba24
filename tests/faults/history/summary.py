"""What a run was, in a few lines."""

from collections import Counter
from collections.abc import Sequence

from tests.faults.history.checker import reachable, recovery_seconds
from tests.faults.history.records import SERVED, Call, History

__all__ = ["summary"]


def summary(history: History, refused_publications: int, left_out: Sequence[str]) -> str:
    """Return the figures of a run.

    Args:
        history: the run.
        refused_publications: how often the store refused the publisher.
        left_out: kinds of faults that could not be done here, with the reason.

    """
    answers = [call for call in history.calls if call.code == "OK"]
    failed = [call for call in history.calls if call.code != "OK"]
    served = [call for call in failed if call.selector == SERVED]
    selected = [call for call in failed if call.selector != SERVED]
    seconds = recovery_seconds(history)
    lines = [
        f"{len(history.calls)} calls, {len(answers)} answers of "
        f"{len({call.version for call in answers})} versions",
        f"failures of calls that select nothing: {_failures(served, history)}",
        f"failures of calls that select a version or an alias: {_failures(selected, history)}",
        f"{len(history.releases)} versions published, {refused_publications} publications refused",
        f"{len(history.faults)} faults: {_counts(Counter(f.kind for f in history.faults))}",
        f"to the last good version, {history.last_good}: {max(seconds.values()):.2f} s, "
        f"allowed {history.due_seconds:.2f} s",
        *(f"left out: {kind}" for kind in left_out),
    ]
    return "\n".join(lines)


def _failures(calls: Sequence[Call], history: History) -> str:
    return _counts(
        Counter(
            f"{call.code} while {'one' if reachable(call, history.outages) else 'none'} of its "
            "replicas was reachable"
            for call in calls
        )
    )


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"

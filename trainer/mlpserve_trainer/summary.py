"""What the command prints after a training: the figures, the verdict, and what to do next."""

import shlex
from collections.abc import Iterator

from mlpserve_trainer.training import Outcome, TrainSettings

__all__ = ["summary"]


def summary(settings: TrainSettings, outcome: Outcome) -> str:
    """Return the result of a training as text for a terminal."""
    return "\n".join(_lines(settings, outcome))


def _lines(settings: TrainSettings, outcome: Outcome) -> Iterator[str]:
    if outcome.verdict == "UNCHANGED":
        yield f"nothing to train: {outcome.reasons[0]}"
        return
    yield outcome.report
    for name in ("accuracy", "validation_accuracy", "training_accuracy"):
        yield f"{name.replace('_', ' ')} {outcome.metrics[name]:.4f}"
    yield f"\nversion {outcome.version}: {outcome.verdict}, in {outcome.seconds:.1f} s"
    for reason in outcome.reasons:
        yield f"  {reason}"
    yield f"  trained on {outcome.trained_on}"
    yield f"  the version: {outcome.place}"
    yield f"  its report:  {outcome.place}/report.html\n"
    yield from _next_steps(settings, outcome)


def _next_steps(settings: TrainSettings, outcome: Outcome) -> Iterator[str]:
    """Give the commands that use the version, with the flags by which they find it."""
    default = TrainSettings()
    flags = "".join(
        f" --{name} {shlex.quote(str(getattr(settings, name)))}"
        for name in ("store", "model")
        if getattr(settings, name) != getattr(default, name)
    )
    if outcome.verdict == "REJECTED":
        yield "servers do not load it; to promote it in spite of the reasons above:"
        yield f"  mlpserve models promote {outcome.version} --force --reason TEXT{flags}"
        return
    yield "next (a server of this model that runs already loads the version by itself):"
    yield f"  mlpserve serve{flags}"
    yield "  mlpserve predict --demo"

"""What the command prints after a training: the figures, the verdict, and what to do next."""

from collections.abc import Iterator
from importlib.util import find_spec

from mlpserve_model.process.flags import store_flags
from mlpserve_model.store.location import Location
from mlpserve_trainer.release.outcome import Outcome

__all__ = ["summary"]


# What a server needs and a trainer does not: an image of the trainer alone lacks it.
SERVER_PACKAGE = "grpc_health"


def summary(outcome: Outcome, store: Location, model: str) -> str:
    """Return the result of a training as text for a terminal.

    Args:
        outcome: The result.
        store: The version's store.
        model: Its model's name.

    """
    return "\n".join(_lines(outcome, store, model, find_spec(SERVER_PACKAGE) is not None))


def _lines(outcome: Outcome, store: Location, model: str, can_serve: bool) -> Iterator[str]:
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
    yield from _next_steps(outcome, store, model, can_serve)


def _next_steps(outcome: Outcome, store: Location, model: str, can_serve: bool) -> Iterator[str]:
    """Give the commands that use the version, if they run here."""
    flags = store_flags(model, store)
    if outcome.verdict == "REJECTED":
        yield "servers do not load it; to promote it in spite of the reasons above:"
        yield f"  mlpserve models promote {outcome.version} --force --reason TEXT{flags}"
        return
    if outcome.is_challenger:
        yield "it is the challenger now; when callers have reported on audited answers:"
        yield f"  mlpserve judge --feedback PLACE{flags}"
        return
    if not can_serve:
        yield "servers of this model load the version by themselves"
        return
    yield "next (a server of this model that runs already loads the version by itself):"
    yield f"  mlpserve serve{flags}"
    yield f"  mlpserve predict --demo{store_flags(model)}"

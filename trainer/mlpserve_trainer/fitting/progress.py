"""Progress display: each function passes the epochs of a training through."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from mlpserve_trainer.fitting.fit import Epoch

__all__ = ["Watch", "log_epochs", "show_bar"]

# Takes the epochs and their planned number; yields the same epochs.
Watch: TypeAlias = Callable[[Iterator[Epoch], int], Iterator[Epoch]]

logger = logging.getLogger(__name__)


def log_epochs(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
    """Log one line for each epoch, for output that is not a terminal."""
    started = time.monotonic()
    # The first epoch of a resumed training is not number 1.
    for done, epoch in enumerate(epochs, start=1):
        elapsed = time.monotonic() - started
        logger.info(
            "epoch ended",
            extra={
                "epoch": epoch.number,
                "epochs": total,
                "loss": round(epoch.loss, 5),
                "validation_accuracy": round(epoch.validation_accuracy, 5),
                "seconds_left": round(elapsed / done * (total - epoch.number), 1),
            },
        )
        yield epoch


def show_bar(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
    """Draw a progress bar on standard error, with loss, validation accuracy and time left."""
    # Imported here, because it takes 0.1 s that a training without a terminal does not need.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        for epoch in epochs:
            text = f"loss {epoch.loss:.4f}  validation accuracy {epoch.validation_accuracy:.4f}"
            bar.update(task, completed=epoch.number, description=text)
            yield epoch

"""Showing the training while it goes on: each function passes the epochs through."""

import logging
import time
from collections.abc import Callable, Iterator

from mlpserve_trainer.fitting.fit import Epoch

__all__ = ["Watch", "log_epochs", "show_bar"]

# Takes the epochs and how many there will be; gives the same epochs.
Watch = Callable[[Iterator[Epoch], int], Iterator[Epoch]]

logger = logging.getLogger(__name__)


def log_epochs(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
    """Log one line an epoch, for output that is no terminal."""
    started = time.monotonic()
    # A resumed training's first epoch is not number 1.
    for done, epoch in enumerate(epochs, start=1):
        elapsed = time.monotonic() - started
        logger.info(
            "epoch %d of %d",
            epoch.number,
            total,
            extra={
                "loss": round(epoch.loss, 5),
                "validation_accuracy": round(epoch.validation_accuracy, 5),
                "seconds_left": round(elapsed / done * (total - epoch.number), 1),
            },
        )
        yield epoch


def show_bar(epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
    """Draw a progress bar on standard error, with loss, validation accuracy and time left."""
    # Imported here: a tenth of a second that a quiet run does not need.
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

"""Data that people bring along, recipes, and when to train."""

from functools import cache

import numpy as np

from mlpserve_model.process.arguments import SettingsParser
from mlpserve_trainer.commands.flags import add_schedule_flags, train_settings
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.drop_folder import read_drop
from mlpserve_trainer.datasets.idx import read_idx, write_idx
from mlpserve_trainer.datasets.npz import read_npz
from mlpserve_trainer.errors import CheckpointDamaged, DataError, UsageError
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.recipes.loading import load_recipe
from mlpserve_trainer.schedule.triggers import timetable
from tests.fuzz.model import as_settings
from tests.fuzz.target import scratch, split, target


@target(DataError)
def npz(data: bytes) -> None:
    rows = read_npz(scratch("own.npz", data))
    assert rows.inputs.dtype in (np.uint8, np.float32)
    assert rows.labels.ndim == 1
    assert 1 <= rows.maximum <= 255


@target(DataError)
def drop(data: bytes) -> None:
    read = read_drop(scratch("drop.npz", data), _first())
    assert read.inputs.shape == (len(read.labels), 2, 2)
    assert read.labels.max() < 2


@target(DataError)
def idx(data: bytes) -> None:
    values = read_idx(scratch("idx", data))
    write_idx(scratch("again"), values)
    assert np.array_equal(read_idx(scratch("again")), values)


@target(CheckpointDamaged)
def checkpoint(data: bytes) -> None:
    Checkpoint(scratch("checkpoint.npz", data)).load()


@target(UsageError)
def recipe(data: bytes) -> None:
    load_recipe(str(scratch("own.toml", data)))


@target(UnicodeDecodeError, UsageError)
def cron(data: bytes) -> None:
    expression, zone = (part.decode() for part in split(data, 2))
    timetable(expression, None, zone or "UTC", 0)


@target(UnicodeDecodeError, UsageError)
def settings(data: bytes) -> None:
    parser = SettingsParser(prog="mlpserve-trainer schedule")
    add_schedule_flags(parser)
    with as_settings(data) as arguments:
        options = parser.parse_args(arguments)
        train_settings(options)
        timetable(options.cron, options.every, options.time_zone, options.jitter)


@cache
def _first() -> Dataset:
    """The source that a dropped file has to fit."""
    inputs = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    return Dataset("first", inputs, np.array([0, 1, 0, 1]), ("a", "b"), 16)

"""Search for a recipe: many trainings, compared on validation data, on all cores or a cluster.

A sweep is a small TOML file: a base recipe, seeds, and the values to try for some keys.

    recipe = "quick"
    seeds = [0, 1, 2]
    trials = 20                     # optional: number of combinations, drawn at random
    [grid]
    learning_rate = [0.002, 0.004]
    hidden = [[128], [64, 64]]

The trainings run through joblib, which has the same interface to processes, Dask and Ray.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from mlpserve_model.process.children import safe_path
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.sources import check_used
from mlpserve_trainer.datasets.split import split
from mlpserve_trainer.errors import DataError, TrainingDiverged, UsageError
from mlpserve_trainer.fitting.fit import fit
from mlpserve_trainer.fitting.parallel.engine import interleaved_engine
from mlpserve_trainer.fitting.run import network_for
from mlpserve_trainer.input_files import read_text, read_toml
from mlpserve_trainer.recipes.loading import load_recipe
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["BACKENDS", "Score", "Sweep", "load_sweep", "run_sweep", "table"]

BACKENDS = ("local", "dask", "ray")
SAMPLE_SEED = 22
# Of a grid, and of what is tried of it: the first are counted alone, the second are held.
MAX_COMBINATIONS, MAX_TRIALS = 10**18, 10**5

logger = logging.getLogger(__name__)

_Used: TypeAlias = list[str | float]  # the data of a training: their digest and maximum


@dataclass(frozen=True)
class Sweep:
    """The recipes to compare, the keys in which they differ, and the seeds of each."""

    recipes: tuple[Recipe, ...]
    keys: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """The validation accuracy of a recipe, one for each seed."""

    recipe: Recipe
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds."""
        return mean(self.accuracies)

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds, 0 for a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def load_sweep(path: Path) -> Sweep:
    """Read a sweep's file.

    Raises:
        UsageError: It cannot be read, is not a sweep, or has a value that does not fit.

    """
    values = read_toml("sweep", path)
    if not _makes_sense(values):
        raise UsageError(
            f"sweep {path}: expected recipe, seeds (whole numbers), trials (a whole number above "
            "0), and [grid] with a list of values for each key"
        )
    base = load_recipe(values.get("recipe", "quick"))
    grid, trials = values["grid"], values.get("trials")
    count = math.prod(map(len, grid.values()))
    if count > MAX_COMBINATIONS or min(count, trials or count) > MAX_TRIALS:
        raise UsageError(
            f"sweep {path}: {min(count, trials or count):,} of {count:,} combinations, expected at "
            f"most {MAX_TRIALS:,} of {MAX_COMBINATIONS:.0e}: set trials, or try fewer values"
        )
    drawn: Sequence[int] = range(count)
    if trials is not None and trials < count:
        rng = np.random.default_rng(SAMPLE_SEED)
        drawn = sorted(rng.choice(count, trials, replace=False).tolist())
    recipes = tuple(base.override(_combination(grid, index)) for index in drawn)
    return Sweep(recipes, tuple(grid), tuple(values.get("seeds", [0])))


def _combination(grid: Mapping[str, Sequence[Any]], index: int) -> dict[str, Any]:
    """Return the values of one combination; the last key changes first, as in nested loops."""
    chosen = {}
    for key in reversed(list(grid)):
        index, place = divmod(index, len(grid[key]))
        chosen[key] = grid[key][place]
    return {key: chosen[key] for key in grid}


def run_sweep(
    sweep: Sweep,
    places: DataLocations,
    results: Path,
    jobs: int,
    backend: str,
    scheduler: str | None,
) -> list[Score]:
    """Run the trainings that `results` does not have yet; return the scores, the best first.

    A training that diverges counts as an accuracy of 0.

    Args:
        sweep: The trainings.
        places: Where the data is.
        results: File of JSON lines; each training is appended when it ends.
        jobs: Number of trainings that run at the same time, each on one thread; -1 is one for
            each core.
        backend: One of BACKENDS.
        scheduler: Address of a Dask or Ray cluster; None starts one on this machine.

    Raises:
        UsageError: The backend is not installed, or a setting has no effect.
        TrainerError: The data cannot be used.

    """
    from joblib import Parallel, delayed  # type: ignore[import-untyped]

    if scheduler and backend == "local":
        raise UsageError(f"--scheduler {scheduler} has no effect without --backend dask or ray")
    _loaded.cache_clear()
    used: dict[str, _Used] = {}
    for dataset in sorted({recipe.dataset for recipe in sweep.recipes}):
        check_used(dataset, places)
        _, used[dataset] = _loaded(dataset, places)

    wanted = [(r, seed, used[r.dataset]) for r in sweep.recipes for seed in sweep.seeds]
    done = _read(results)
    missing = [trial for trial in wanted if _key(*trial) not in done]
    facts = {"trainings": len(wanted), "done_before": len(wanted) - len(missing)}
    logger.info("sweep started", extra=facts)
    results.parent.mkdir(parents=True, exist_ok=True)
    with safe_path(), _backend(backend, scheduler), results.open("a", encoding="utf-8") as file:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        lines: Any = parallel(delayed(_trial)(*trial, places) for trial in missing)
        for line in lines:
            print(json.dumps(line), file=file, flush=True)
            done[_key_of(line)] = line["validation_accuracy"]
            logger.info("trained", extra={k: line[k] for k in ("validation_accuracy", "seconds")})
    accuracies = [done[_key(*trial)] for trial in wanted]
    return _scores(sweep, accuracies)


def table(sweep: Sweep, scores: Sequence[Score]) -> str:
    """Return the scores as a table, with the values of the keys that were varied."""
    rows = [["validation", "deviation", *sweep.keys]]
    for score in scores:
        values = (_shown(getattr(score.recipe, key)) for key in sweep.keys)
        rows.append([f"{score.mean:.4f}", f"{score.deviation:.4f}", *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _loaded(name: str, places: DataLocations) -> tuple[Dataset, _Used]:
    """Load the data set once in each process; return it, and what it is."""
    data = load(name, places)
    return data, [data.digest(), data.input_maximum]


def _data(name: str, places: DataLocations, used: _Used) -> Dataset:
    """Return the data set that the sweep began with; a process may have one of a sweep before."""
    for _ in range(2):
        data, found = _loaded(name, places)
        if found == used:
            return data
        _loaded.cache_clear()
    raise DataError(f"data set {name} has changed since the sweep began")


def _trial(recipe: Recipe, seed: int, used: _Used, places: DataLocations) -> dict[str, Any]:
    started = time.perf_counter()
    data = _data(recipe.dataset, places, used)
    parts = split(data, recipe.validation_fraction)
    network, rows = network_for(recipe, data), (parts.training, parts.validation)
    try:
        # One thread for each training: the trainings themselves occupy the cores.
        with threadpool_limits(1, user_api="blas"):
            *_, last = fit(network, recipe, *rows, seed, engine=interleaved_engine)
        accuracy = last.validation_accuracy
    except TrainingDiverged:
        accuracy = 0.0
    seconds = round(time.perf_counter() - started, 2)
    facts = {"validation_accuracy": accuracy, "seconds": seconds}
    return {"recipe": recipe.as_dict(), "seed": seed, "data": used, **facts}


@contextmanager
def _backend(name: str, scheduler: str | None) -> Iterator[None]:
    """Select joblib's backend, and import its packages only here."""
    from joblib import parallel_config

    if name == "local":
        yield
        return
    try:
        if name == "dask":
            distributed = import_module("distributed")
            local = {} if scheduler else {"dashboard_address": None}
            with distributed.Client(scheduler, **local), parallel_config(backend="dask"):
                yield
        else:
            ray, on_ray = import_module("ray"), import_module("ray.util.joblib")
            ray.init(address=scheduler)
            on_ray.register_ray()
            with parallel_config(backend="ray"):
                yield
    except ModuleNotFoundError as error:
        raise UsageError(f"--backend {name} needs the package {error.name}: install it") from error


def _scores(sweep: Sweep, accuracies: Sequence[float]) -> list[Score]:
    """Return the scores of recipes, whose accuracies are in order, one for each seed."""
    count = len(sweep.seeds)
    scores = [
        Score(recipe, tuple(accuracies[count * row : count * (row + 1)]))
        for row, recipe in enumerate(sweep.recipes)
    ]
    return sorted(scores, key=lambda score: -score.mean)


def _read(results: Path) -> dict[str, float]:
    if not results.exists():
        return {}
    try:
        lines = map(json.loads, read_text(results).splitlines())
        return {_key_of(line): line["validation_accuracy"] for line in lines}
    except (DataError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{results} has no results of a sweep: {error}") from error


def _key(recipe: Recipe, seed: int, used: _Used) -> str:
    return json.dumps([recipe.as_dict(), seed, used], sort_keys=True)


def _key_of(line: Mapping[str, Any]) -> str:
    # Lines of older releases do not say which data were used: no training of now is theirs.
    return json.dumps([line["recipe"], line["seed"], line.get("data")], sort_keys=True)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _makes_sense(values: Mapping[str, Any]) -> bool:
    grid, seeds, trials = values.get("grid"), values.get("seeds", [0]), values.get("trials", 1)
    return (
        values.keys() <= {"recipe", "seeds", "trials", "grid"}
        and isinstance(values.get("recipe", ""), str)
        and isinstance(grid, dict)
        and all(isinstance(choices, list) and choices for choices in grid.values())
        and isinstance(seeds, list)
        and len(seeds) > 0
        and all(type(seed) is int and seed >= 0 for seed in seeds)
        and type(trials) is int
        and trials > 0
    )

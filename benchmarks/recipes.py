"""What the recipes reach on MNIST's test images, and how long they train for it.

    python benchmarks/recipes.py [--recipe NAME ...] [--seeds 0 1 2 ...] [--again]

Each training is the trainer's own; the test images are looked at once, when it is over. Results go
to a file of JSON as they come, and a training that is there already with the same recipe is not
done again; one that was stopped goes on after its last epoch. Then the table is printed and the
figure drawn. Seconds are the clock's, of training alone, and the processor's, of both cores
together, which other work on the machine disturbs less.
"""

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.style import context

from mlpserve_model.process.folders import cache_folder
from mlpserve_model.process.log import set_up
from mlpserve_trainer import Recipe, load_recipe
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.split import split
from mlpserve_trainer.evaluation.calibration import expected_calibration_error, reliability
from mlpserve_trainer.evaluation.scores import evaluate, probabilities
from mlpserve_trainer.fitting.checkpoint import Checkpoint
from mlpserve_trainer.fitting.fit import Epoch
from mlpserve_trainer.fitting.progress import log_epochs
from mlpserve_trainer.fitting.run import fitted, network_for

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "recipes.json"
FIGURE = HERE.parent / "docs" / "images" / "recipes.svg"
RECIPES = ("quick", "augmented", "accurate")
# Measured only when it is named: its learning rate is for another data set.
OTHERS = ("vanilla",)
# Grey and blue that can be read on white and on black.
INK, BLUE = "#7d8590", "#3d8bdb"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpserve",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Run = dict[str, Any]

logger = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", nargs="*", default=RECIPES, choices=RECIPES + OTHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run for each")
    parser.add_argument("--again", action="store_true", help="also what there is a result of")
    parser.add_argument(
        "--json",
        type=Path,
        default=RESULTS,
        help="where the figures go, and elsewhere than by default also the drawing",
    )
    options = parser.parse_args()
    set_up("human", "INFO")
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("mnist", DataLocations(Path(folder) if folder else None, cache_folder()))
    for name in options.recipe:
        recipe = load_recipe(name)
        for seed in options.seeds:
            if options.again or not _is_done(_read(options.json), recipe, seed):
                _add(options.json, _run(recipe, seed, data))
    runs = _current(_read(options.json))
    print(table(runs))
    draw(runs, FIGURE if options.json == RESULTS else options.json.with_suffix(".svg"))


def _run(recipe: Recipe, seed: int, data: Dataset) -> Run:
    parts, network = split(data, recipe.validation_fraction), network_for(recipe, data)
    place = cache_folder() / "recipes" / f"{recipe.name}-{seed}-{_digest(recipe)}.npz"
    checkpoint, clock = Checkpoint(place), _Clock(place.with_suffix(".json"))
    last = fitted(network, recipe, parts, seed, clock.watch, checkpoint, resume=True)
    reached = evaluate(last.network, last.weights, parts.holdout)
    answers = probabilities(last.network, last.weights, parts.holdout)
    bins = reliability(answers, parts.holdout.labels)
    logger.info("%s, seed %d: %.4f", recipe.name, seed, reached.accuracy)
    checkpoint.remove()
    clock.path.unlink()
    seconds, processor_seconds = clock.spent
    return {
        "recipe": recipe.name,
        "hidden": recipe.hidden,
        "digest": _digest(recipe),
        "seed": seed,
        "training_rows": len(parts.training),
        "test_accuracy": round(reached.accuracy, 4),
        "test_log_loss": round(reached.log_loss, 5),
        "calibration_error": round(expected_calibration_error(bins), 5),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
    }


class _Clock:
    """The seconds of a training and of its processor, over all its runs until it is done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent: list[float] = json.loads(path.read_text()) if path.exists() else [0.0, 0.0]

    def watch(self, epochs: Iterator[Epoch], total: int) -> Iterator[Epoch]:
        before = [now - spent for now, spent in zip(_clocks(), self.spent, strict=True)]
        for epoch in log_epochs(epochs, total):
            self.spent = [now - then for now, then in zip(_clocks(), before, strict=True)]
            self.path.write_text(json.dumps(self.spent))
            yield epoch


def _clocks() -> tuple[float, float]:
    # The processes of ended epochs count as children.
    return time.perf_counter(), sum(os.times()[:4])


def _digest(recipe: Recipe) -> str:
    """Identify a recipe by the keys that its accuracy on MNIST depends on."""
    aside = ("description", "calibration", "min_steps")
    settings = {key: value for key, value in recipe.as_dict().items() if key not in aside}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> list[Run]:
    runs: list[Run] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return runs


def _add(path: Path, run: Run) -> None:
    """Read again just before, so that trainings can go on side by side."""
    others = [one for one in _read(path) if _key(one) != _key(run)]
    runs = sorted([*others, run], key=lambda one: (*_key(one), one["seed"]))
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n", "utf-8")


def _key(run: Run) -> tuple[int, int]:
    return (RECIPES + OTHERS).index(run["recipe"]), run["seed"]


def _is_done(runs: list[Run], recipe: Recipe, seed: int) -> bool:
    return any(one["seed"] == seed and one["digest"] == _digest(recipe) for one in runs)


def _current(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of each recipe as it now is, where there are some."""
    digests = {name: _digest(load_recipe(name)) for name in RECIPES + OTHERS}
    each = {
        name: [one for one in runs if one["digest"] == digest] for name, digest in digests.items()
    }
    return {name: some for name, some in each.items() if some}


def table(runs: dict[str, list[Run]]) -> str:
    lines = [
        "| recipe | network | test accuracy, mean | each seed | calibration error, each seed "
        "| seconds | processor seconds |",
        "| --- | --- | ---: | --- | --- | ---: | ---: |",
    ]
    for name, some in runs.items():
        sizes = "-".join(map(str, (784, *some[0]["hidden"], 10)))
        accuracies = [one["test_accuracy"] for one in some]
        figures = [
            f"{mean(accuracies):.2%}",
            ", ".join(f"{accuracy:.2%}" for accuracy in accuracies),
            ", ".join(f"{one['calibration_error']:.2%}" for one in some),
            *(f"{mean(one[key] for one in some):.0f}" for key in ("seconds", "processor_seconds")),
        ]
        lines.append(f"| `{name}` | {sizes} | {' | '.join(figures)} |")
    return "\n".join(lines)


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    with context(STYLE):
        figure = Figure(figsize=(6.4, 3.0))
        axis = figure.subplots()
        for name, some in runs.items():
            times = [one["seconds"] for one in some]
            right = [one["test_accuracy"] * 100 for one in some]
            axis.plot(times, right, "o", color=BLUE, ms=5, alpha=0.7, mew=0)
            axis.annotate(
                f"{name}\n{mean(right):.2f} %",
                (max(times), mean(right)),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
            )
        axis.set_xscale("log", subs=[3])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(xlabel="seconds of training on two cores", ylabel="right on the test images, %")
        axis.margins(x=0.25, y=0.15)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()

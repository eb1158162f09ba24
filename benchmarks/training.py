"""Seconds an epoch and accuracy: the `quick` recipe beside scikit-learn's MLPClassifier.

    python benchmarks/training.py [--rounds 3] [--epochs 3]

The same data, network, batch size, optimizer and number of threads, the rounds interleaved,
medians printed. Uses MNIST where it can be had, scikit-learn's digits otherwise.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from mlpserve_model import Network
from mlpserve_trainer import TrainSettings, load_recipe
from mlpserve_trainer.datasets import Places, load
from mlpserve_trainer.evaluation import accuracy
from mlpserve_trainer.fitting import fit
from mlpserve_trainer.recipe import Recipe
from mlpserve_trainer.split import Split, split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--epochs", type=int, default=3, help="epochs in a run")
    options = parser.parse_args()
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    places = Places(Path(folder) if folder else None, TrainSettings().cache_dir)
    recipe = load_recipe("quick", epochs=options.epochs, schedule="constant", label_smoothing=0.0)
    data = load(recipe.dataset, places)
    parts = split(data, recipe.validation_fraction)

    contenders = {"mlpserve": run_mlpserve, "scikit-learn": run_scikit_learn}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    reached: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(options.rounds):
        for name, run in contenders.items():
            with threadpool_limits(1, user_api="blas"):
                elapsed, score = measured(run, recipe, parts, seed)
            seconds[name].append(elapsed / options.epochs)
            reached[name].append(score)
    report(data.name, seconds, reached)


def measured(
    run: Callable[[Recipe, Split, int], Callable[[], float]],
    recipe: Recipe,
    parts: Split,
    seed: int,
) -> tuple[float, float]:
    started = time.perf_counter()
    score = run(recipe, parts, seed)
    return time.perf_counter() - started, score()


def run_mlpserve(recipe: Recipe, parts: Split, seed: int) -> Callable[[], float]:
    inputs, classes = parts.training.inputs[0].size, int(parts.holdout.labels.max()) + 1
    network = Network((inputs, *recipe.hidden, classes))
    *_, last = fit(network, recipe, parts.training, parts.validation, seed)
    return lambda: accuracy(network, last.weights, parts.holdout)


def run_scikit_learn(recipe: Recipe, parts: Split, seed: int) -> Callable[[], float]:
    classifier = MLPClassifier(
        recipe.hidden,
        solver="adam",
        alpha=0,
        batch_size=recipe.batch_size,
        learning_rate_init=recipe.learning_rate,
        max_iter=recipe.epochs,
        random_state=seed,
        n_iter_no_change=recipe.epochs + 1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are given, not sought
        classifier.fit(parts.training.scaled(), parts.training.labels)
    return lambda: float(classifier.score(parts.holdout.scaled(), parts.holdout.labels))


def report(
    data_name: str, seconds: dict[str, list[float]], reached: dict[str, list[float]]
) -> None:
    best = median(seconds["mlpserve"])
    print(f"{data_name}, medians; mlpserve includes its validation after each epoch\n")
    print(f"{'':14} {'s an epoch':>10} {'ratio':>6} {'accuracy':>9}")
    for name, times in seconds.items():
        middle = median(times)
        print(f"{name:14} {middle:10.3f} {middle / best:6.2f} {median(reached[name]):9.4f}")
    print(json.dumps({"data": data_name, "seconds_an_epoch": seconds, "accuracy": reached}))


if __name__ == "__main__":
    main()

"""Train recipes and report their accuracy on 10,000 of MNIST's training images.

    python benchmarks/training/search.py < settings.jsonl >> search.log

The shipped recipes were chosen by it. Each line of the input is a JSON object of recipe keys; the
others have the defaults of `Recipe`, "seed" is 0. Each line of the output has the accuracy after
the last epoch, the mean log loss, which differs where accuracies do not, and CPU seconds, which
other programs disturb less than wall-clock seconds. The test images are never used. Every training
takes one thread, so two searches can run in parallel. `mlpserve-trainer sweep` covers grids with
several seeds; this script is for a few guesses, each derived from the result before.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mlpserve_model.process.folders import cache_folder
from mlpserve_trainer import Recipe
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.split import split
from mlpserve_trainer.evaluation.scores import evaluate
from mlpserve_trainer.fitting.fit import fit
from mlpserve_trainer.fitting.parallel.engine import interleaved_engine
from mlpserve_trainer.fitting.run import network_for

VALIDATION = 1 / 6


def main() -> None:
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("mnist", DataLocations(Path(folder) if folder else None, cache_folder()))
    for line in sys.stdin:
        settings = json.loads(line)
        print(json.dumps({"settings": settings} | validated(settings, data)), flush=True)


def validated(settings: dict[str, Any], data: Dataset) -> dict[str, float]:
    keys = {key: value for key, value in settings.items() if key != "seed"}
    recipe = Recipe(validation_fraction=VALIDATION).override(keys)
    parts, started = split(data, recipe.validation_fraction), time.process_time()
    network, rows = network_for(recipe, data), (parts.training, parts.validation)
    with threadpool_limits(1, user_api="blas"):
        *_, last = fit(network, recipe, *rows, settings.get("seed", 0), engine=interleaved_engine)
    seconds = round(time.process_time() - started)
    reached = evaluate(network, last.weights, parts.validation)
    return {
        "validation_accuracy": round(reached.accuracy, 4),
        "log_loss": round(reached.log_loss, 5),
        "training_loss": round(last.loss, 5),
        "processor_seconds": seconds,
    }


if __name__ == "__main__":
    main()

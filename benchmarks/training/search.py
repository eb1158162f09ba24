"""What the shipped recipes were chosen by: accuracy on 10,000 of MNIST's training images.

    python benchmarks/training/search.py < settings.jsonl >> search.log

Each line of the input is a JSON object of recipe keys, for the rest of which a Recipe's defaults
stand, and "seed" if it is not 0. Each line of the output has the accuracy after the last epoch, the
mean log loss, which tells apart what accuracy cannot, and the processor's seconds, which other work
on the machine disturbs less than the clock's. The test images are never looked at. Every training
takes one thread, so that two of these can run side by side. For grids with seeds there is
`mlpserve-trainer sweep`; this is for a few guesses, each from the last one's answer.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mlpserve_trainer import Recipe
from mlpserve_trainer.datasets import Dataset, Places, load
from mlpserve_trainer.datasets.split import split
from mlpserve_trainer.evaluation.scores import evaluate
from mlpserve_trainer.fitting.fit import fit
from mlpserve_trainer.fitting.parallel.engine import interleaved_engine
from mlpserve_trainer.fitting.run import network_for
from mlpserve_trainer.training import default_cache_dir

VALIDATION = 1 / 6


def main() -> None:
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("mnist", Places(Path(folder) if folder else None, default_cache_dir()))
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

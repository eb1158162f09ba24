"""What the shipped recipes were chosen by: accuracy on 10,000 of MNIST's training images.

    python benchmarks/training/search.py < changes.jsonl >> search.log

Each line of the input is a JSON object of changes to the recipe `quick` as it was; each line of
the output has the accuracy after the last epoch, and the processor's seconds, which other work on
the machine disturbs less than the clock's. The test images are never looked at. For grids with
seeds there is `mlpserve-trainer sweep`; this is for a few guesses, each from the last one's answer.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mlpserve_trainer import load_recipe
from mlpserve_trainer.datasets import Dataset, Places, load
from mlpserve_trainer.fitting import fit
from mlpserve_trainer.split import split
from mlpserve_trainer.training import default_cache_dir, network_for

# The recipe that all changes in search.log are relative to.
START = {"learning_rate": 0.004, "batch_size": 64, "shift": 0.0, "validation_fraction": 1 / 6}


def main() -> None:
    folder = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("mnist", Places(Path(folder) if folder else None, default_cache_dir()))
    for line in sys.stdin:
        changes = json.loads(line)
        print(json.dumps({"changes": changes} | validated(changes, data)), flush=True)


def validated(changes: dict[str, Any], data: Dataset) -> dict[str, float]:
    recipe = load_recipe("quick").override(START | changes)
    parts, started = split(data, recipe.validation_fraction), time.process_time()
    with threadpool_limits(1, user_api="blas"):
        *_, last = fit(network_for(recipe, data), recipe, parts.training, parts.validation, 0)
    seconds = round(time.process_time() - started)
    return {"validation_accuracy": last.validation_accuracy, "processor_seconds": seconds}


if __name__ == "__main__":
    main()

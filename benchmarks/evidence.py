"""The figures of docs/feedback.md: what the statistics promise, drift, attacks, 100,000 reports.

    python benchmarks/evidence.py [--only lives drift attack reports] [--data-dir MNIST]

Everything is the product's own code. Results go to benchmarks/results/evidence.json, section by
section.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.crowd.attack import attack
from benchmarks.crowd.lives import coverage, pairs
from benchmarks.crowd.many import many_reports
from benchmarks.crowd.shifts import false_alarms, resent_halves, rows_until_alarm
from mlpserve_model import Store
from mlpserve_model.process.folders import cache_folder
from mlpserve_trainer import TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import DataLocations, load

RESULTS = Path(__file__).parent / "results" / "evidence.json"
LIVES, DAYS, RUNS, REPORTS = 2000, 1000, 30, 100_000

Section = Callable[[argparse.Namespace, Path], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--folder", type=Path, help="where stores and reports are made meanwhile")
    parser.add_argument("--reports", type=int, default=REPORTS)
    parser.add_argument("--days", type=int, default=DAYS)
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found[name] = SECTIONS[name](options, Path(folder))
        print(f"{name}: {time.perf_counter() - started:.0f} s")
        print(json.dumps(found[name], indent=2))
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


def _lives(_: argparse.Namespace, __: Path) -> dict[str, Any]:
    return {"lives": LIVES, "pairs": pairs(LIVES), "misses": coverage(LIVES)}


def _drift(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    images, labels = _mnist(options)[2:]
    recipe = load_recipe("quick", dataset="mnist")
    settings = TrainSettings(store=folder, recipe=recipe, data_dir=options.data_dir)
    model = Store(folder, "mnist").load(train(settings).version)
    scaled = (images / np.float32(255)).astype(np.float32)
    return {
        "without": false_alarms(model, scaled, labels, options.days),
        "halves_resent": resent_halves(model, scaled, labels, options.days // 10),
        "rows_until_alarm": rows_until_alarm(model, scaled, labels, RUNS),
    }


def _attack(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows: dict[str, Any] = attack(*_mnist(options), folder)
    return rows


def _reports(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return many_reports(options.reports, folder)


def _mnist(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    data = load("mnist", DataLocations(options.data_dir, cache_folder()))
    first, rest = slice(data.training_rows), slice(data.training_rows, None)
    return data.inputs[first], data.labels[first], data.inputs[rest], data.labels[rest]


SECTIONS: dict[str, Section] = {
    "lives": _lives,
    "drift": _drift,
    "attack": _attack,
    "reports": _reports,
}

if __name__ == "__main__":
    main()

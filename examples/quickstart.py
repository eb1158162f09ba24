"""The whole loop in a minute: train, publish, serve, call, publish better, swap under load.

Run it with `make demo`. It uses real MNIST where it can be had, and the digits that come with
scikit-learn otherwise. Everything it makes lies in a temporary folder and goes away with it.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_client import Client
from mlpserve_trainer import Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.datasets import Places, load
from mlpserve_trainer.datasets.split import Examples, split

SHADES = " .:-=+*#%@"


def main() -> int:
    """Run the loop; 0 when every call was answered and the version changed."""
    # What is worth a word: which data set is used, and why.
    logging.basicConfig(format="   %(message)s", level=logging.WARNING)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mlpserve-demo-") as folder:
        failed = run(Path(folder))
    print(f"\nall done in {time.monotonic() - started:.0f} s, {failed} failed calls")
    return 1 if failed else 0


def run(store: Path) -> int:
    """Train, serve, call and swap; return how many calls failed."""
    say("1. the data")
    defaults = TrainSettings()
    data_dir = os.environ.get("MLPSERVE_DATA_DIR")
    data = load("auto", Places(Path(data_dir) if data_dir else None, defaults.cache_dir))
    holdout = split(data, load_recipe("quick").validation_fraction).holdout
    print(f"   {data.name}: {len(data.inputs)} images from {data.source}")

    def train_version(recipe: dict[str, Any], rules: Rules) -> int:
        settings = TrainSettings(
            store=store,
            recipe=load_recipe("quick", dataset=data.name, **recipe),
            data_dir=Path(data_dir) if data_dir else None,
            rules=rules,
        )
        outcome = train(settings)
        accuracy = outcome.metrics["accuracy"]
        print(f"   version {outcome.version}: {outcome.verdict}, {accuracy:.2%} on the holdout")
        return outcome.version

    say("2. a first version: small and trained in haste, so the gate's floor is lowered")
    train_version({"hidden": (16,), "epochs": 2}, Rules(min_accuracy=0.1))

    say("3. the server, a process of its own")
    with running_server(store) as address, Client(address) as client:
        client.wait_until_ready(timeout=30)
        print(f"   ready on {address}")
        say("4. calls through the client library, with images it was not trained on")
        show_predictions(client, holdout)
        show_accuracy(client, holdout)
        say("5. a better version, published while calls go on")
        with calling(client, holdout) as answers:
            # Few images make few steps an epoch, so they get more epochs.
            better = train_version({"epochs": 60 if len(data.inputs) < 10_000 else 12}, Rules())
            wait_for(lambda: answers[better] > 100)
        for version, count in sorted(answers.items(), key=str):
            print(f"   {count:6} answers by version {version}")
        show_accuracy(client, holdout)
    return answers["failed"]


@contextmanager
def running_server(store: Path) -> Iterator[str]:
    """Run `mlpserve-server` on a free port; give its address."""
    program = str(Path(sys.executable).with_name("mlpserve-server"))
    command = [program, "--store", str(store)]
    command += ["--listen", "127.0.0.1:0", "--poll-seconds", "0.2", "--log-format", "json"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        first: dict[str, str] = json.loads(server.stderr.readline())
        # Read on, or the server would wait for room in the pipe one day.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield first["address"]
    finally:
        server.terminate()
        code = server.wait(timeout=30)
        say(f"6. the server has drained and stopped with exit code {code}")


def show_predictions(client: Client, holdout: Examples, count: int = 3) -> None:
    """Draw some images side by side, with the prediction and its probability below."""
    images, labels = holdout.inputs[:count], holdout.labels[:count]
    width = images.shape[2]
    for lines in zip(*map(picture, images), strict=True):
        print("   " + "  ".join(f"{line:{width}}" for line in lines).rstrip())
    captions = []
    for image, label in zip(images, labels, strict=True):
        prediction = client.predict(image)
        verdict = "right" if prediction.label == label else f"it is {label}"
        captions.append(f"-> {prediction.name}, {prediction.probability:.1%}, {verdict}")
    print("   " + "  ".join(f"{caption:{width}}" for caption in captions).rstrip())


def show_accuracy(client: Client, holdout: Examples) -> None:
    """Send the whole holdout and compare the answers with the labels."""
    answer = client.predict_batch(holdout.inputs)
    accuracy = np.mean(answer.labels == holdout.labels)
    version, rows = answer.model.version, len(holdout.labels)
    print(f"   accuracy over gRPC: {accuracy:.2%} on {rows} images, version {version}")


@contextmanager
def calling(client: Client, holdout: Examples) -> Iterator[Counter[int | str]]:
    """Call without a pause; count the answers by version, and the failures."""
    answers: Counter[int | str] = Counter()
    done = threading.Event()

    def call() -> None:
        for i in range(sys.maxsize):
            if done.is_set():
                return
            try:
                answers[client.predict(holdout.inputs[i % len(holdout.inputs)]).model.version] += 1
            except Exception as error:
                answers["failed"] += 1
                print(f"   a call failed: {error}")

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def picture(image: Any) -> list[str]:
    """Draw (height, width) in characters, every other row: they are twice as high as wide."""
    shades = np.rint(image / image.max() * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[shade] for shade in row) for row in shades[::2]]


def wait_for(condition: Any, seconds: float = 20) -> None:
    """Wait until the condition holds; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened in {seconds:g} s")
        time.sleep(0.05)


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

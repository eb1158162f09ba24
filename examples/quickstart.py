"""The whole loop in a minute: train, publish, serve, call, publish better, swap under load.

Run it with `make demo`. It uses MNIST if it can be found or fetched, and the digits that come with
scikit-learn otherwise. Everything it creates is in a temporary folder, which it removes at the end.
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

from mlpserve_client import BatchPrediction, Client, ClientClosedError, MlpserveError
from mlpserve_trainer import TrainSettings, load_recipe
from mlpserve_trainer.datasets import DataLocations, load
from mlpserve_trainer.datasets.split import Examples, split

SHADES = " .:-=+*#%@"


def main() -> int:
    """Run the loop; return 0 if every call was answered and the served version changed."""
    logging.basicConfig(format="   %(message)s", level=logging.WARNING)
    print("The whole loop: half a minute with scikit-learn's digits, a minute with MNIST.")
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="mlpserve-demo-") as folder:
            failed = run(Path(folder))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left behind")
        return 130
    print(f"\nall done in {time.monotonic() - started:.0f} s, {failed} failed calls")
    return 1 if failed else 0


def run(store: Path) -> int:
    """Train, serve, call and swap; return how many calls failed."""
    say("1. load the data (MNIST is fetched once, which can take a minute)")
    data_dir = os.environ.get("MLPSERVE_DATA_DIR")
    data = load(
        "auto", DataLocations(Path(data_dir) if data_dir else None, TrainSettings().cache_dir)
    )
    holdout = split(data, load_recipe("quick").validation_fraction).holdout
    print(f"   {data.name}: {len(data.inputs)} images from {data.source}")
    # An epoch of few images has few steps, so a small data set gets more epochs.
    epochs = "15" if len(data.inputs) < 10_000 else "1"

    say("2. train and publish a first version: a small network, few epochs, a lowered gate")
    haste = ["--hidden", "8", "--epochs", epochs, "--min-accuracy", "0.1"]
    first = train(store, "--dataset", data.name, *haste)

    say("3. start the server, a process of its own")
    with running_server(store) as address, Client(address) as client:
        client.wait_until_ready(timeout=30)
        print(f"   ready on {address}")
        say("4. call it with holdout images: two that it gets right, one that it gets wrong")
        answers = client.predict_batch(holdout.inputs)
        show_accuracy(answers, holdout)
        rows = [*np.flatnonzero(answers.labels == holdout.labels)[:2]]
        rows += [*np.flatnonzero(answers.labels != holdout.labels)[:1]]
        show_predictions(client, holdout, rows)
        say("5. train and publish a better version while calls go on")
        with calling(client, holdout) as counts:
            better = train(store, "--dataset", data.name)
            wait_for(lambda: counts[better] > 100)
        for version in (first, better):
            print(f"   {counts[version]:6} answers by version {version}")
        show_accuracy(client.predict_batch(holdout.inputs), holdout)
        show_predictions(client, holdout, rows)
    return counts["failed"]


def train(store: Path, *flags: str) -> int:
    """Run `mlpserve-trainer train` and return the version it published."""
    print(f"   $ mlpserve-trainer train {' '.join(flags)}", flush=True)
    command = [program("mlpserve-trainer"), "train", "--store", str(store), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    outcome = json.loads(done.stdout)
    accuracy = outcome["metrics"]["accuracy"]
    print(f"   version {outcome['version']}: {outcome['verdict']}, {accuracy:.2%} on the holdout")
    version: int = outcome["version"]
    return version


def program(name: str) -> str:
    """Return the path of one of our programs: it lies beside the interpreter."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def running_server(store: Path) -> Iterator[str]:
    """Run `mlpserve-server` on a free port and yield its address."""
    command = [program("mlpserve-server"), "--store", str(store)]
    command += ["--listen", "127.0.0.1:0", "--poll-seconds", "0.2", "--log-format", "json"]
    # In a session of its own: Ctrl-C in the terminal reaches this script alone, which stops it.
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stderr
        first: dict[str, str] = json.loads(server.stderr.readline())
        # Keep reading: a full pipe would block the server.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield first["address"]
    finally:
        server.terminate()
        code = server.wait(timeout=30)
        say(f"6. stop the server: it drained and ended with exit code {code}")


def show_predictions(client: Client, holdout: Examples, rows: list[int]) -> None:
    """Draw some images side by side, with the prediction and its probability below."""
    images, labels = holdout.inputs[rows], holdout.labels[rows]
    captions = []
    for image, label in zip(images, labels, strict=True):
        prediction = client.predict(image)
        verdict = "right" if prediction.label == label else f"wrong: it is {label}"
        captions.append(f"{prediction.name} ({prediction.probability:.0%}), {verdict}")
    width = max(images.shape[2], *map(len, captions))
    for lines in zip(*map(picture, images), strict=True):
        print("   " + "  ".join(f"{line:{width}}" for line in lines).rstrip())
    print("   " + "  ".join(f"{caption:{width}}" for caption in captions).rstrip())


def show_accuracy(answers: BatchPrediction, holdout: Examples) -> None:
    """Compare the answers for the whole holdout with the labels."""
    accuracy = np.mean(answers.labels == holdout.labels)
    version, rows = answers.model.version, len(holdout.labels)
    print(f"   accuracy over gRPC: {accuracy:.2%} on {rows} images, version {version}")


@contextmanager
def calling(client: Client, holdout: Examples) -> Iterator[Counter[int | str]]:
    """Call without a pause in a thread; yield the number of answers of each version."""
    answers: Counter[int | str] = Counter()
    done = threading.Event()

    def call() -> None:
        for i in range(sys.maxsize):
            if done.is_set():
                return
            try:
                answers[client.predict(holdout.inputs[i % len(holdout.inputs)]).model.version] += 1
            except ClientClosedError:  # the demo was interrupted
                return
            except MlpserveError as error:
                answers["failed"] += 1
                print(f"   a call failed: {error}")

    thread = threading.Thread(target=call, daemon=True)  # an interrupt does not wait for it
    thread.start()
    try:
        yield answers
    finally:
        done.set()
    thread.join()


def picture(image: Any) -> list[str]:
    """Draw (height, width) in characters, every other row: a character is twice as high as wide."""
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

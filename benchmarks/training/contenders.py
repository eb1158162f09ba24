"""One contender of the training benchmark, in a process and a Python environment of its own.

    python contenders.py NAME DATA.npz [HIDDEN,... [BATCH]]

Reads lines of JSON such as {"seed": 0, "epochs": 3, "until": 0.98}, trains, and answers each with
{"seconds": [an epoch, ...], "steps": [microseconds, ...], "accuracies": [...], "peak_bytes": n}.
The accuracy is that on the test set, is not part of the time, and ends the training once it reaches
`until`. `steps` has the first percentile, the median and the 99th percentile of the step times.
"""

import json
import math
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

RATE = 0.001
# The fastest settings to 98 % on validation images (docs/notes/training.md), with a cosine schedule
# over the epochs of the sprint and He's initial weights.
SPRINT_RATE, SPRINT_SMOOTHING = 0.006, 0.05

# Steps in one jitted scan, enough to make the cost of the call negligible.
SCANNED = 36
# End time of each step by its number, from the contenders that can tell it.
ends: dict[int, float] = {}

# A training: each next() is one epoch, and yields a function that computes the accuracy after it.
Training = Iterator[Callable[[], float]]


class Data:
    """Images (n, 784), scaled and raw, with labels (n,); sizes of the layers; rows of a step."""

    def __init__(self, path: str, hidden: str = "128", batch: str = "128") -> None:
        self.sizes = (784, *map(int, hidden.split(",")), 10)
        self.batch = int(batch)
        with np.load(path) as file:
            self.raw, self.labels = file["x"], file["y"]
            self.test_raw, self.test_labels = file["test_x"], file["test_y"]
        self.x = self.raw.astype(np.float32) / 255
        self.test_x = self.test_raw.astype(np.float32) / 255


def main() -> None:
    name, *task = sys.argv[1:]
    data = Data(*task)
    train, steps = CONTENDERS[name](data), len(data.x) / data.batch
    for line in sys.stdin:
        print(json.dumps(_run(train, steps, **json.loads(line))), flush=True)


def _run(
    train: Callable[[int, int], Training], epoch_steps: float, seed: int, epochs: int, until: float
) -> dict[str, Any]:
    seconds, accuracies = [], []
    ends.clear()
    started = time.perf_counter()
    for accuracy in train(seed, epochs):
        seconds.append(time.perf_counter() - started)
        accuracies.append(accuracy())
        if accuracies[-1] >= until:
            break
        started = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = [1e6 * second / epoch_steps for second in seconds]
    if ends:
        numbers = np.array(sorted(ends))
        times = np.array([ends[number] for number in numbers])
        steps = list(1e6 * np.diff(times) / np.diff(numbers))
    fast, middle, slow = np.quantile(steps, (0.01, 0.5, 0.99)).round(1).tolist()
    found = {"seconds": seconds, "steps": [fast, middle, slow], "accuracies": accuracies}
    return found | {"peak_bytes": peak}


def mlpserve(sprint: bool, processes: int = 2) -> Callable[[Data], Callable[[int, int], Training]]:
    def prepare(data: Data) -> Callable[[int, int], Training]:
        from mlpserve_model import Network
        from mlpserve_trainer import Recipe, load_recipe
        from mlpserve_trainer.datasets.split import Examples
        from mlpserve_trainer.evaluation.scores import accuracy
        from mlpserve_trainer.fitting.fit import fit
        from mlpserve_trainer.fitting.optimizers import OPTIMIZERS
        from mlpserve_trainer.fitting.parallel.engine import ParallelEngine, interleaved_engine

        training = Examples(data.raw, data.labels, 255)
        few, test = training.select(slice(100)), Examples(data.test_raw, data.test_labels, 255)
        network = Network.uniform(data.sizes)
        adam = {"batch_size": data.batch, "optimizer": "adam", "shift": 0.0}
        plain = {"learning_rate": RATE, "schedule": "constant", "label_smoothing": 0.0}
        fast = {"learning_rate": SPRINT_RATE, "label_smoothing": SPRINT_SMOOTHING,
            "schedule": "cosine", "initialisation": "he"}  # fmt: skip

        engine = ParallelEngine if processes > 1 else interleaved_engine
        update = OPTIMIZERS["adam"].update

        def timed(w: Any, g: Any, state: Any, step: int, rate: float, recipe: Recipe) -> None:
            update(w, g, state, step, rate, recipe)
            # With two processes this is the first one's time; they share a barrier in each step.
            ends[step] = time.perf_counter()

        OPTIMIZERS["adam"] = OPTIMIZERS["adam"]._replace(update=timed)

        def train(seed: int, epochs: int) -> Training:
            recipe = load_recipe("quick", epochs=epochs, **adam, **(fast if sprint else plain))
            with threadpool_limits(1, user_api="blas"):
                for epoch in fit(network, recipe, training, few, seed, engine=engine):
                    yield partial(accuracy, network, epoch.weights, test)

        return train

    return prepare


def scikit_learn(threads: int) -> Callable[[Data], Callable[[int, int], Training]]:
    def prepare(data: Data) -> Callable[[int, int], Training]:
        from sklearn.neural_network import MLPClassifier

        def train(seed: int, epochs: int) -> Training:
            same = {"alpha": 0, "batch_size": data.batch, "learning_rate_init": RATE}
            classifier = MLPClassifier(data.sizes[1:-1], random_state=seed, **same)
            with threadpool_limits(threads, user_api="blas"):
                for _ in range(epochs):
                    # The same as an epoch of fit(), without its setup.
                    classifier.partial_fit(data.x, data.labels, classes=np.arange(10))
                    yield lambda: float(classifier.score(data.test_x, data.test_labels))

        return train

    return prepare


def torch_eager(
    threads: int, sprint: bool = False, compiled: bool = False
) -> Callable[[Data], Callable[[int, int], Training]]:
    def prepare(data: Data) -> Callable[[int, int], Training]:
        import torch

        torch.set_num_threads(threads)
        x, y = torch.from_numpy(data.x), torch.from_numpy(data.labels)
        test_x, test_y = torch.from_numpy(data.test_x), torch.from_numpy(data.test_labels)
        first_rate, smoothing = (SPRINT_RATE, SPRINT_SMOOTHING) if sprint else (RATE, 0.0)

        def train(seed: int, epochs: int) -> Training:
            torch.manual_seed(seed)
            layers = [torch.nn.Linear(*sizes) for sizes in pairwise(data.sizes)]
            hidden = [part for layer in layers[:-1] for part in (layer, torch.nn.ReLU())]
            model = torch.nn.Sequential(*hidden, layers[-1])
            total = epochs * -(-len(x) // data.batch)
            if sprint:
                for layer in layers:
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    torch.nn.init.zeros_(layer.bias)
            optimizer = torch.optim.Adam(model.parameters(), first_rate, fused=True)

            def loss_of(rows: Any, labels: Any) -> Any:
                scores = model(rows)
                return torch.nn.functional.cross_entropy(scores, labels, label_smoothing=smoothing)

            loss_fn, step = torch.compile(loss_of) if compiled else loss_of, 0
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).split(data.batch):
                    if sprint:
                        share = (1 + math.cos(math.pi * step / total)) / 2
                        optimizer.param_groups[0]["lr"] = first_rate * share
                    optimizer.zero_grad()
                    loss_fn(x[rows], y[rows]).backward()
                    optimizer.step()
                    step += 1
                    ends[step] = time.perf_counter()
                yield lambda: float((model(test_x).argmax(1) == test_y).float().mean())

        return train

    return prepare


def jax_scan(scan: bool) -> Callable[[Data], Callable[[int, int], Training]]:
    """Train by jitted scans over many steps, or by one jitted call for each step."""

    def prepare(data: Data) -> Callable[[int, int], Training]:
        import jax  # type: ignore[import-not-found]
        import jax.numpy as jnp  # type: ignore[import-not-found]

        x, y = jnp.asarray(data.x), jnp.asarray(data.labels)
        test_x, test_y = jnp.asarray(data.test_x), jnp.asarray(data.test_labels)
        steps = len(data.x) // data.batch

        def logits(p: Any, rows: Any) -> Any:
            for w, b in p[:-1]:
                rows = jnp.maximum(rows @ w + b, 0)
            return rows @ p[-1][0] + p[-1][1]

        def loss(p: Any, rows: Any, labels: Any) -> Any:
            scores = jax.nn.log_softmax(logits(p, rows))
            return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

        def step(carry: Any, rows: Any) -> Any:
            p, m, v, t = carry
            grads = jax.grad(loss)(p, x[rows], y[rows])
            t = t + 1
            m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
            v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)
            a, b = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
            p = jax.tree.map(
                lambda w, mm, vv: w - RATE * mm * a / (jnp.sqrt(vv * b) + 1e-8), p, m, v
            )
            return (p, m, v, t), None

        whole = jax.jit(lambda carry, orders: jax.lax.scan(step, carry, orders)[0])
        single = jax.jit(lambda carry, rows: step(carry, rows)[0])
        score = jax.jit(lambda p: (logits(p, test_x).argmax(1) == test_y).mean())

        def train(seed: int, epochs: int) -> Training:
            rng = np.random.default_rng(seed)
            draws = (rng.normal(0, (2 / s[0]) ** 0.5, s) for s in pairwise(data.sizes))
            p = [(jnp.asarray(w, jnp.float32), jnp.zeros(w.shape[1], jnp.float32)) for w in draws]
            zeros = jax.tree.map(jnp.zeros_like, p)
            carry, used = (p, zeros, zeros, jnp.float32(0)), steps * data.batch
            for epoch in range(epochs):
                orders = rng.permutation(len(data.x))[:used].reshape(steps, data.batch)
                if scan:
                    for done in range(SCANNED, steps + 1, SCANNED):
                        carry = whole(carry, jnp.asarray(orders[done - SCANNED : done]))
                        jax.block_until_ready(carry)
                        ends[epoch * steps + done] = time.perf_counter()
                else:
                    for rows in orders:
                        carry = single(carry, rows)
                jax.block_until_ready(carry)
                yield partial(float, score(carry[0]))

        return train

    return prepare


def products(threads: int, halves: int) -> Callable[[Data], Callable[[int, int], Training]]:
    """Compute only the matrix products of a step, a lower bound for any NumPy step."""

    def prepare(data: Data) -> Callable[[int, int], Training]:
        steps = len(data.x) / data.batch

        def work() -> None:
            rng, rows = np.random.default_rng(0), data.batch // halves
            values = [rng.random((rows, size), dtype=np.float32) for size in data.sizes]
            deltas = [rng.random(value.shape, dtype=np.float32) for value in values]
            weights = [rng.random(sizes, dtype=np.float32) for sizes in pairwise(data.sizes)]
            gradients = [np.empty_like(w) for w in weights]
            for step in range(round(steps)):
                for level, w in enumerate(weights):
                    np.dot(values[level], w, out=values[level + 1])
                for level in range(len(weights) - 1, -1, -1):
                    np.dot(values[level].T, deltas[level + 1], out=gradients[level])
                    if level:
                        np.dot(deltas[level + 1], weights[level].T, out=deltas[level])
                ends[step] = time.perf_counter()

        def train(seed: int, epochs: int) -> Training:
            with threadpool_limits(threads, user_api="blas"):
                for _ in range(epochs):
                    others = [threading.Thread(target=work) for _ in range(halves - 1)]
                    for other in others:
                        other.start()
                    work()
                    for other in others:
                        other.join()
                    yield lambda: 0.0

        return train

    return prepare


CONTENDERS: dict[str, Callable[[Data], Callable[[int, int], Training]]] = {
    "matrix products, two halves": products(1, 2),
    "matrix products, 2 BLAS threads": products(2, 1),
    "matrix products, 1 thread": products(1, 1),
    "mlpserve": mlpserve(sprint=False),
    "mlpserve, 1 process": mlpserve(sprint=False, processes=1),
    "mlpserve sprint": mlpserve(sprint=True),
    "JAX, jitted scans": jax_scan(scan=True),
    "JAX, step by step": jax_scan(scan=False),
    "PyTorch eager, fused Adam, 2 threads": torch_eager(2),
    "PyTorch eager, fused Adam, 1 thread": torch_eager(1),
    "PyTorch compiled, fused Adam, 2 threads": torch_eager(2, compiled=True),
    "PyTorch sprint": torch_eager(2, sprint=True),
    "scikit-learn, 2 BLAS threads": scikit_learn(2),
    "scikit-learn, 1 BLAS thread": scikit_learn(1),
}

if __name__ == "__main__":
    main()

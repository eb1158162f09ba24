"""One contender of the training benchmark, in a process and a Python environment of its own.

    python contenders.py NAME DATA.npz

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
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

BATCH, HIDDEN, RATE = 128, 128, 0.001
STEPS = 60_000 / BATCH
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
    """MNIST: images (n, 784), float32 from 0 to 1 and raw uint8, with labels (n,)."""

    def __init__(self, path: str) -> None:
        with np.load(path) as file:
            self.raw, self.labels = file["x"], file["y"]
            self.test_raw, self.test_labels = file["test_x"], file["test_y"]
        self.x = self.raw.astype(np.float32) / 255
        self.test_x = self.test_raw.astype(np.float32) / 255


def main() -> None:
    name, path = sys.argv[1:]
    train = CONTENDERS[name](Data(path))
    for line in sys.stdin:
        print(json.dumps(_run(train, **json.loads(line))), flush=True)


def _run(
    train: Callable[[int, int], Training], seed: int, epochs: int, until: float
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
    steps = [1e6 * second / STEPS for second in seconds]
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
        network = Network((data.x.shape[1], HIDDEN, 10))
        adam = {"batch_size": BATCH, "optimizer": "adam", "shift": 0.0}
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
            classifier = MLPClassifier(
                HIDDEN, alpha=0, batch_size=BATCH, learning_rate_init=RATE, random_state=seed
            )
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
            first, last = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 10)
            layers = (first, torch.nn.ReLU(), last)
            model, total = torch.nn.Sequential(*layers), epochs * -(-len(x) // BATCH)
            if sprint:
                for layer in layers[::2]:
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    torch.nn.init.zeros_(layer.bias)
            optimizer = torch.optim.Adam(model.parameters(), first_rate, fused=True)

            def loss_of(rows: Any, labels: Any) -> Any:
                scores = model(rows)
                return torch.nn.functional.cross_entropy(scores, labels, label_smoothing=smoothing)

            loss_fn, step = torch.compile(loss_of) if compiled else loss_of, 0
            for _ in range(epochs):
                for rows in torch.randperm(len(x)).split(BATCH):
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
        steps = len(data.x) // BATCH

        def logits(p: Any, rows: Any) -> Any:
            return jnp.maximum(rows @ p[0] + p[1], 0) @ p[2] + p[3]

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
            shapes = [(x.shape[1], HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,)]
            p = [
                jnp.asarray(rng.normal(0, (2 / s[0]) ** 0.5 * (len(s) > 1), s), jnp.float32)
                for s in shapes
            ]
            zeros = [jnp.zeros_like(w) for w in p]
            carry = (p, zeros, [jnp.zeros_like(w) for w in p], jnp.float32(0))
            for epoch in range(epochs):
                orders = rng.permutation(len(data.x))[: steps * BATCH].reshape(steps, BATCH)
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
    """Compute only the five matrix products of a step, a lower bound for any NumPy step."""

    def prepare(data: Data) -> Callable[[int, int], Training]:
        inputs, steps = data.x.shape[1], len(data.x) / BATCH

        def work() -> None:
            rng, rows = np.random.default_rng(0), BATCH // halves
            shapes = (rows, inputs), (inputs, HIDDEN), (rows, HIDDEN), (HIDDEN, 10), (rows, 10)
            x, w1, d1, w2, d2 = (rng.random(shape, dtype=np.float32) for shape in shapes)
            z1, z2, below = np.empty_like(d1), np.empty_like(d2), np.empty_like(d1)
            g1, g2 = np.empty_like(w1), np.empty_like(w2)
            for step in range(round(steps)):
                np.dot(x, w1, out=z1)
                np.dot(z1, w2, out=z2)
                np.dot(z1.T, d2, out=g2)
                np.dot(d2, w2.T, out=below)
                np.dot(x.T, d1, out=g1)
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

"""One server with many models: time to ready, memory, idle cost, promotion to answer, cost a call.

    python benchmarks/many_models.py [--models 1000] [--workers 2] [--versions 10000]

Publishes that many models of 784-128-10 into a store of its own and serves all of them. Calls go to
a hundred of the models at random from 64 connections, and to one of them in turns with that, in one
run; the cost is the CPU time of the server's processes. The time of a publish is measured with 1,
100 and all models in the store, and with 10 and all versions of one.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np

from benchmarks.compare.processes import Running, free_port
from benchmarks.compare.report import machine
from benchmarks.compare.workload import NETWORK
from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import (
    CHAMPION,
    DatasetInfo,
    Draft,
    Network,
    Signature,
    Store,
    Verdict,
    initialise,
)

RESULTS = Path(__file__).parent / "results" / "many_models.json"
CONNECTIONS, CALLS, ROUNDS = 64, 6400, 6
PUBLISHES = 9
SETTLE_SECONDS, IDLE_SECONDS = 3.0, 10.0
PREDICT = "/mlpserve.v1.PredictionService/Predict"
ROW = np.random.default_rng(0).random(NETWORK.inputs, dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="models in the store")
    parser.add_argument("--workers", type=int, default=2, help="workers of the server")
    parser.add_argument("--versions", type=int, default=10_000, help="versions of one model")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        figures: dict[str, Any] = {"models": options.models, "workers": options.workers}
        figures["publish_ms_by_models"] = publish_all(root, options.models)
        figures |= serve_all(root, options.models, options.workers)
        store = Store(Path(folder) / "versions", "one")
        figures["publish_ms_by_versions"] = publish_versions(store, options.versions)
    options.json.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {value}")


def publish_all(root: Path, count: int) -> dict[str, float]:
    """Publish the models; return the median milliseconds of a publish by models in the store."""
    found = {}
    measured = {1, min(100, count), count}
    for number in range(count):
        publish(Store(root, name(number)), seed=number)
        if number + 1 in measured:
            found[str(number + 1)] = publish_ms(Store(root, "timed"))
        if number % 100 == 99:
            print(f"{number + 1} models published", file=sys.stderr)
    return found


def publish_versions(store: Store, count: int) -> dict[str, float]:
    """Publish versions; return the median milliseconds of a publish by versions of the model."""
    found = {}
    measured = {min(10, count), count}
    for number in range(1, count + 1):
        publish(store, seed=number)
        if number in measured:
            found[str(number)] = publish_ms(store)
        if number % 1000 == 0:
            print(f"{number} versions published", file=sys.stderr)
    return found


def publish_ms(store: Store) -> float:
    """Return the median milliseconds of a publish into this store."""
    times = [timed(partial(publish, store, seed=0)) for _ in range(PUBLISHES)]
    return round(statistics.median(times) * 1000, 1)


def serve_all(root: Path, count: int, workers: int) -> dict[str, Any]:
    """Serve all models and measure."""
    port = free_port()
    command = [sys.executable, "-m", "mlpserve_server", "--store", str(root), "--model", "*"]
    command += [
        "--listen",
        f"127.0.0.1:{port}",
        "--workers",
        str(workers),
        "--log-level",
        "warning",
    ]
    with tempfile.TemporaryDirectory() as folder:
        server = Running(command, port, {}, Path(folder))
        channels = [
            grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CONNECTIONS)
        ]
        try:
            for channel in channels:
                answered(channel, name(count - 1))
            figures = {"seconds_to_all_answering": round(time.perf_counter() - server.started, 2)}
            time.sleep(SETTLE_SECONDS)
            figures["memory_mib"] = round(server.memory_bytes() / 2**20)
            before = cpu(server)
            time.sleep(IDLE_SECONDS)
            figures["idle_cpu_percent"] = round((cpu(server) - before) / IDLE_SECONDS * 100, 1)
            figures["promotion_to_answer_s"] = promotion(root, channels[0], count)
            return figures | cost(channels, server, count)
        finally:
            server.stop()


def promotion(root: Path, channel: grpc.Channel, count: int) -> float:
    """Return the median seconds from a promotion to an answer of it, for random models."""
    seconds = []
    for _ in range(5):
        chosen = name(random.randrange(count))
        version = publish(Store(root, chosen), seed=2**31)
        seconds.append(timed(partial(answered, channel, chosen, version)))
    return round(statistics.median(seconds), 2)


def cost(channels: list[grpc.Channel], server: Running, count: int) -> dict[str, Any]:
    """Return the CPU microseconds of a call to one model and to a hundred, in turns."""
    calls: list[Any] = [channel.unary_unary(PREDICT) for channel in channels]
    many = [request(name(number)) for number in range(0, count, max(1, count // 100))]
    found: dict[str, list[float]] = {"one": [], "many": []}
    for turn in range(2 * ROUNDS):
        kind, requests = (("one", many[:1]), ("many", many))[turn % 2]
        before = cpu(server)
        for _ in range(CALLS // CONNECTIONS):
            futures = [call.future(random.choice(requests), timeout=30) for call in calls]
            for future in futures:
                future.result()
        found[kind].append((cpu(server) - before) / CALLS * 1e6)
    return {
        "us_a_call_one_model": round(statistics.median(found["one"]), 1),
        f"us_a_call_{len(many)}_models": round(statistics.median(found["many"]), 1),
        "ratio": round(
            statistics.median(b / a for a, b in zip(found["one"], found["many"], strict=True)), 3
        ),
    }


def publish(store: Store, seed: int, network: Network = NETWORK) -> int:
    """Publish a version with random weights, as champion."""
    rng = np.random.default_rng(seed)
    draft = Draft(
        model=store.model, network=network,
        signature=Signature((28, 28), 255, tuple("0123456789")),
        dataset=DatasetInfo("drawn", "sha256:0", "none"), recipe={}, seed=0, libraries={},
        metrics={"accuracy": 0.9},
    )  # fmt: skip
    golden = rng.random((4, network.inputs), dtype=np.float32)
    version = store.publish(draft, Verdict("PROMOTED"), initialise(network, rng), golden).version
    with store.lock():
        before = store.aliases().get(CHAMPION)
        store.move_alias(CHAMPION, version, expected=before, event="promote", reason="benchmark")
    return version


def answered(channel: grpc.Channel, model: str, version: int = 0) -> None:
    """Return once this model answers, with this version or a later one."""
    call: Any = channel.unary_unary(PREDICT, response_deserializer=pb.PredictResponse.FromString)
    while True:
        try:
            if call(request(model), timeout=30, wait_for_ready=True).model.version >= version:
                return
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                raise
        time.sleep(0.01)


def request(model: str) -> bytes:
    """Return the bytes of a request to a model."""
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[NETWORK.inputs], data=ROW.tobytes())
    selector = model_pb2.ModelSelector(name=model)
    return pb.PredictRequest(instance=tensor, model=selector).SerializeToString()


def name(number: int) -> str:
    """Return the name of a model."""
    return f"digits-{number:05}"


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cpu(server: Running) -> float:
    """Return the CPU seconds of a server's processes so far."""
    return sum(server.cpu_seconds().values())


if __name__ == "__main__":
    main()

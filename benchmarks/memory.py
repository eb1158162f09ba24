"""What requests take of the server's memory: many callers at once, each with the largest request.

    python benchmarks/memory.py [--callers 1 10 100 200] [--image NAME]

For each method, transport and number of callers, a server of its own in 512 MiB gets one call of
every caller at once, on eight connections. Beside them a neighbour calls Predict without pause.
Printed are the most memory that the server ever had, what it has a few seconds later, the status
codes, and the neighbour's p99. The bound is that of a container of the image, which this script
builds; without a Docker engine nothing enforces it, and the server gets the limit as a flag.

The callers themselves take 12 GB of memory.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np

from benchmarks.compare.processes import Running, free_port
from benchmarks.compare.report import machine
from benchmarks.compare.workload import Workload, make
from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.settings import default_max_bytes

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "memory.json"
BOUND = 512 << 20
MAX_BYTES = 60 << 20
CONNECTIONS = 8
START_SECONDS, SETTLE_SECONDS, CALL_SECONDS = 60.0, 3.0, 120.0
PREDICT = "/mlpserve.v1.PredictionService/Predict"
BATCH_PREDICT = "/mlpserve.v1.PredictionService/BatchPredict"
KEYS = "receipt-keys"
TRANSPORTS = ("direct", "standard")
CODES = ("OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")

Started = AbstractContextManager[tuple[str, int]]  # a server's address and process


@dataclass(frozen=True)
class Figures:
    """What one server did: memory in MiB, times in seconds."""

    peak: float
    settled: float
    codes: Mapping[str, int]
    seconds: float  # until the last caller had an answer
    neighbour_p99: float
    neighbour_codes: Mapping[str, int]


def requests() -> dict[str, bytes]:
    """Return the largest request of each method, and the largest that is valid."""
    zeros = bytes(MAX_BYTES)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[MAX_BYTES // 784, 784], data=zeros)
    rows = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[8192, 784], data=bytes(8192 * 784 * 4))
    infer = inference_pb2.ModelInferRequest(model_name="mnist", raw_input_contents=[zeros])
    infer.inputs.add(name="instances", datatype="UINT8", shape=tensor.shape)
    selector = model_pb2.ModelSelector(alias="a" * MAX_BYTES)
    messages: dict[str, Any] = {
        PREDICT: pb.PredictRequest(instance=tensor),
        BATCH_PREDICT: pb.BatchPredictRequest(instances=tensor),
        f"{BATCH_PREDICT}, valid": pb.BatchPredictRequest(instances=rows),
        "/inference.GRPCInferenceService/ModelInfer": infer,
        "/mlpserve.v1.ModelService/GetModelVersion": model_pb2.GetModelVersionRequest(
            model=selector
        ),
        "/mlpserve.v1.ModelService/ListModelVersions": model_pb2.ListModelVersionsRequest(
            page_token="1" * MAX_BYTES
        ),
        "/mlpserve.v1.ModelService/ListModels": model_pb2.ListModelsRequest(
            page_token="1" * MAX_BYTES
        ),
        "/mlpserve.v1.ExplanationService/Explain": explanation_pb2.ExplainRequest(instances=tensor),
        "/mlpserve.v1.FeedbackService/Report": feedback_pb2.ReportRequest(
            reports=[feedback_pb2.Report(receipt=b"r" * 120, right=True, instance=tensor)]
        ),
    }
    return {method: message.SerializeToString() for method, message in messages.items()}


@contextmanager
def contained(image: str, folder: Path, transport: str) -> Iterator[tuple[str, int]]:
    """Run a server in a container of 512 MiB; give its address and process."""
    command = ["docker", "run", "--detach", "--rm", f"--memory={BOUND}", f"--memory-swap={BOUND}"]
    command += ["--user", str(os.getuid())]  # whose keys they are
    command += ["--volume", f"{folder / 'store'}:/models:ro", "--publish", "127.0.0.1::50051"]
    command += [
        "--volume",
        f"{folder / KEYS}:/run/receipt-keys:ro",
        "--tmpfs",
        "/run/feedback:mode=1777",
        image,
    ]
    command += ["--workers", "1", "--allow-plaintext", "--transport", transport]
    command += ["--receipt-keys", "/run/receipt-keys", "--feedback", "/run/feedback"]
    name = _output([*command, "--log-level", "error"])
    try:
        pid = int(_output(["docker", "inspect", "--format", "{{.State.Pid}}", name]))
        yield _output(["docker", "port", name, "50051"]).splitlines()[0], pid
    finally:
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)


@contextmanager
def limited(folder: Path, transport: str) -> Iterator[tuple[str, int]]:
    """Run a server with the limit that it would choose in 512 MiB; give its address and process."""
    port, budget = free_port(), default_max_bytes(BOUND, workers=1)
    command = [str(Path(sys.executable).with_name("mlpserve-server"))]
    command += ["--store", str(folder / "store"), "--receipt-keys", str(folder / KEYS)]
    command += ["--feedback", str(folder / "feedback")]
    command += ["--listen", f"127.0.0.1:{port}", "--max-bytes", str(budget), "--workers", "1"]
    command += ["--transport", transport, "--log-level", "error"]
    with tempfile.TemporaryDirectory() as logs:
        running = Running(command, port, {}, Path(logs))
        try:
            yield f"127.0.0.1:{port}", running.pids()[0]
        finally:
            running.stop()


class Neighbour:
    """Calls Predict without pause, and measures."""

    def __init__(self, address: str, workload: Workload) -> None:
        tensor = pb.Tensor(
            dtype=pb.DATA_TYPE_FLOAT32, shape=workload.row.shape, data=workload.row.tobytes()
        )
        self._request = pb.PredictRequest(instance=tensor).SerializeToString()
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.codes: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)

    def wait_until_ready(self) -> None:
        """Return once the server has answered; raise what it says if it never does."""
        call: Any = self._channel.unary_unary(PREDICT)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                call(self._request, timeout=START_SECONDS, wait_for_ready=True)
                return
            except grpc.RpcError as error:  # it listens before it has read the store
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def __enter__(self) -> "Neighbour":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._channel.close()

    def _run(self) -> None:
        call: Any = self._channel.unary_unary(PREDICT)
        while not self._over.is_set():
            began = time.perf_counter()
            code = call.future(self._request, timeout=CALL_SECONDS).code()
            self.seconds.append(time.perf_counter() - began)
            self.codes[code.name] += 1


def measure(
    server: Callable[[], Started], workload: Workload, method: str, callers: int
) -> Figures:
    """Return the figures of a server that this many callers call at once."""
    with server() as (address, pid):
        neighbour = Neighbour(address, workload)
        neighbour.wait_until_ready()
        # Callers in a process of their own do not keep the neighbour from measuring.
        with neighbour, futures.ProcessPoolExecutor(1, get_context("spawn")) as process:
            codes, seconds = process.submit(call, address, method, callers).result()
        p99 = float(np.quantile(neighbour.seconds, 0.99))
        peak = _memory(pid, "VmHWM")
        time.sleep(SETTLE_SECONDS)
        return Figures(peak, _memory(pid, "VmRSS"), codes, seconds, p99, neighbour.codes)


def table(figures: Mapping[tuple[str, str, int], Figures]) -> str:
    """Return a row of Markdown for each method and number of callers, both transports in each."""
    lines = [
        "| method | callers | peak MiB | settled MiB | answered | refused for memory "
        "| refused as invalid | neighbour p99 ms | neighbour refused |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, callers in dict.fromkeys((method, callers) for method, _, callers in figures):
        both = [figures[key] for t in TRANSPORTS if (key := (method, t, callers)) in figures]
        cells = [
            [f"{each.peak:.0f}" for each in both],
            [f"{each.settled:.0f}" for each in both],
            *([str(each.codes.get(code, 0)) for each in both] for code in CODES),
            [f"{each.neighbour_p99 * 1000:.0f}" for each in both],
            [_refused(each.neighbour_codes) for each in both],
        ]
        lines.append(
            f"| `{method.rpartition('/')[2].partition(',')[0]}`{method.partition(',')[2]} "
            f"| {callers} | {' | '.join(map(' / '.join, cells))} |"
        )
    return "\n".join(lines)


def call(address: str, name: str, count: int) -> tuple[Counter[str], float]:
    """Call with the request of this name at once; return the codes and the seconds it took."""
    request, method = requests()[name], name.partition(",")[0]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(address, options))
            for _ in range(min(count, CONNECTIONS))
        ]
        stubs: list[Any] = [channel.unary_unary(method) for channel in channels]
        began = time.perf_counter()
        calls = [stubs[i % len(stubs)].future(request, timeout=CALL_SECONDS) for i in range(count)]
        return Counter(call.code().name for call in calls), time.perf_counter() - began


def _memory(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"there is no {name} of process {pid}: it has ended")


def _refused(codes: Mapping[str, int]) -> str:
    return f"{(total := sum(codes.values())) - codes.get('OK', 0)} of {total}"


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _image() -> str | None:
    """Return an image of this checkout's server, None without a Docker engine."""
    try:
        _output(["docker", "info"])
    except (OSError, subprocess.CalledProcessError):
        return None
    name = "mlpserve-server:bench"
    _output(["docker", "build", "--quiet", "--target", "server", "--tag", name, str(ROOT)])
    return name


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description="Measure the memory that requests take.")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 10, 100, 200])
    parser.add_argument("--image", help="image of the server; built from this checkout by default")
    parser.add_argument("--methods", nargs="+", choices=requests(), help="all by default")
    options = parser.parse_args()
    image = options.image or _image()
    if not image:
        print("there is no Docker engine: nothing enforces the 512 MiB", file=sys.stderr)
    figures: dict[tuple[str, str, int], Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        workload = make(Path(folder))
        keys = workload.folder / KEYS
        keys.touch(0o600)
        keys.write_text(secrets.token_urlsafe(32) + "\n")
        start = partial(contained, image) if image else limited
        for method in options.methods or requests():
            for transport, callers in product(TRANSPORTS, options.callers):
                server = partial(start, workload.folder, transport)
                figures[method, transport, callers] = measure(server, workload, method, callers)
                print("measured", method, transport, callers, file=sys.stderr)
    print(table(figures))
    names = "method", "transport", "callers"
    rows = [dict(zip(names, key, strict=True)) | vars(each) for key, each in figures.items()]
    document = {"machine": machine(), "container": bool(image), "rows": rows}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

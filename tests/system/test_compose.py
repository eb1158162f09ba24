"""The compose file on a real Docker engine, from nothing to an answer and back to nothing."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlpserve_client import Client, NotReadyError
from mlpserve_server.settings import Settings

ROOT = Path(__file__).parents[2]
TAG = "test"
POLL_SECONDS = 1.0
# Not more than the engine itself takes to answer on a busy machine.
SLACK_SECONDS = 1.0

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


class Stack:
    """A compose project of its own: no container, network or volume is shared with another."""

    def __init__(self, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.target = f"127.0.0.1:{free.getsockname()[1]}"
        self.name = f"mlpserve-test-{uuid4().hex[:8]}"
        # What the tests' own shell sets must not decide what they see.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLPSERVE_")}
        self._environment = inherited | environment
        self._environment |= {
            "MLPSERVE_TAG": TAG,
            "MLPSERVE_PORT": self.target.rpartition(":")[2],
            "MLPSERVE_DATASET": "digits",
        }

    def compose(self, *arguments: str, expect: int = 0) -> str:
        """Run `docker compose`, check its exit code and return what it printed."""
        command = ["docker", "compose", "--progress", "plain", "--project-name", self.name]
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=self._environment, text=True, capture_output=True
        )
        output = done.stdout + done.stderr
        assert done.returncode == expect, f"{arguments}: exit code {done.returncode}\n{output}"
        return output

    def up(self) -> float:
        """Bring everything up and return how many seconds it took."""
        started = time.monotonic()
        self.compose("up", "--wait")
        return time.monotonic() - started

    def run(self, service: str, *arguments: str, expect: int = 0) -> str:
        """Run a one-off container to its end."""
        return self.compose("run", "--rm", "--no-TTY", service, *arguments, expect=expect)

    def models(self, *arguments: str) -> Any:
        """Run `mlpserve-models`, which every image has, on the store."""
        entry = ("--entrypoint", "mlpserve-models", "trainer")
        return self.compose("run", "--rm", "--no-TTY", *entry, *arguments)

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> Any:
        return json.loads(docker("inspect", self.container(service)))[0]

    def events(self, service: str) -> list[str]:
        """Give what the service logged since its container was made."""
        lines = docker("logs", self.container(service)).splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def served(self) -> int:
        with Client(self.target) as client:
            return client.model().ref.version

    def another_version(self) -> None:
        """Train one that is served whatever the gate thinks of it."""
        seed = str(int(time.time()))
        self.run("trainer", "train", "--seed", seed, "--force", "--reason", "a test needs another")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, text=True, capture_output=True)
    return done.stdout + done.stderr


def wait_for(what: Callable[[], bool], seconds: float) -> float:
    """Wait until `what` holds; return how long it took."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    try:
        docker("info")
        docker("compose", "version")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no Docker engine with compose answers: {getattr(error, 'stderr', error)}")


@pytest.fixture
def new_stack() -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(**environment: str) -> Stack:
        stacks.append(Stack(**environment))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def built(engine: None) -> Iterator[Stack]:
    """Everything built and brought up from nothing, once for this module."""
    stack = Stack()
    started = time.monotonic()
    stack.compose("--profile", "client", "build")
    print(f"\nimages built (cached where nothing changed): {time.monotonic() - started:.1f} s")
    try:
        print(f"from nothing to healthy: {stack.up():.1f} s")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture
def stack(built: Stack) -> Stack:
    """The same, brought up again after a test that stopped it."""
    if not built.container("server") or not built.inspect("server")["State"]["Running"]:
        built.up()
    return built


def test_from_nothing_to_a_demo(stack: Stack) -> None:
    answer = stack.run("client", "predict", "--demo")

    print(f"\n{answer}")
    assert "version" in answer


def test_a_program_on_the_host_gets_right_answers_and_the_version(stack: Stack) -> None:
    digits = load_digits()

    with Client(stack.target) as client:
        one = client.predict(digits.images[0].astype(np.uint8))
        many = client.predict_batch(digits.images.astype(np.uint8))

    accuracy = float(np.mean(many.labels == digits.target))
    print(f"\nversion {one.model.version}, {accuracy:.2%} of {len(many.labels)} digits right")
    assert one.label == digits.target[0]
    assert accuracy > 0.9
    assert many.model == one.model
    assert one.model.version == stack.served()


def test_a_second_up_serves_the_same_version_without_training(stack: Stack) -> None:
    served, logged = stack.served(), len(stack.events("trainer"))
    stack.compose("stop")

    seconds = stack.up()

    said = stack.events("trainer")[logged:]
    print(f"\nsecond up to healthy: {seconds:.1f} s; the trainer says {said}")
    assert stack.served() == served
    assert said == ["nothing to do: there is a champion"]
    assert stack.inspect("trainer")["State"]["ExitCode"] == 0


def test_the_server_picks_up_a_retraining_and_a_rollback(stack: Stack) -> None:
    before = stack.served()
    stack.another_version()
    swap = wait_for(lambda: stack.served() > before, 2 * POLL_SECONDS + SLACK_SECONDS)

    stack.models("rollback", "--to", str(before), "--reason", "a test")
    back = wait_for(lambda: stack.served() == before, 2 * POLL_SECONDS + SLACK_SECONDS)

    print(f"\nserved {swap:.2f} s after the training ended, {back:.2f} s after the rollback")


def test_a_host_folder_is_the_trainers_data(
    new_stack: Callable[..., Stack], tmp_path: Path, built: Stack
) -> None:
    digits = load_digits()
    np.savez(tmp_path / "mine.npz", X=digits.images.astype(np.uint8), y=digits.target, maximum=16)
    tmp_path.chmod(0o755)  # the container's user is nobody on the host
    stack = new_stack(MLPSERVE_DATA_DIR=str(tmp_path))

    trained = stack.run(
        "trainer", "train", "--dataset", "npz", "--epochs", "1", "--force", "--reason", "test"
    )

    assert "1797 rows from /data/mine.npz" in trained


def test_a_rejected_first_training_leaves_a_server_that_waits_for_a_better_one(
    new_stack: Callable[..., Stack], built: Stack
) -> None:
    stack = new_stack(MLPSERVE_MIN_ACCURACY="1")

    stack.compose("up", "--detach")

    assert stack.inspect("trainer")["State"]["ExitCode"] == 3
    with Client(stack.target) as client:
        with pytest.raises(NotReadyError):
            client.wait_until_ready(timeout=5)
        stack.run("trainer", "train", "--min-accuracy", "0.5")
        wait_for(client.health, 2 * POLL_SECONDS + SLACK_SECONDS)


def test_every_setting_of_the_server_passes_through() -> None:
    config = json.loads(Stack().compose("config", "--format", "json"))
    passed = config["services"]["server"]["environment"].keys()
    names = {f"MLPSERVE_{field.name.upper()}" for field in fields(Settings)}
    # The image says where; the number of a worker is its parent's business.
    assert names - {"MLPSERVE_STORE", "MLPSERVE_LISTEN", "MLPSERVE_WORKER"} == set(passed)


def test_stopping_a_training_ends_it_at_once_and_publishes_nothing(stack: Stack) -> None:
    before = stack.models("list")
    command = ("run", "--detach", "trainer", "train", "--epochs", "1000000")
    training = stack.compose(*command).splitlines()[0]
    wait_for(lambda: "epoch 1 of" in docker("logs", training), 60)

    started = time.monotonic()
    docker("stop", "--time", "30", training)

    assert time.monotonic() - started < 10
    assert "interrupted: nothing was published" in docker("logs", training)
    assert stack.models("list") == before
    docker("rm", training)


def test_containers_have_no_rights_that_they_do_not_need(stack: Stack) -> None:
    for service in ("server", "trainer"):
        facts = stack.inspect(service)
        host = facts["HostConfig"]
        assert facts["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0

    process = stack.compose("exec", "-T", "server", "cat", "/proc/1/status")
    status = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("path", ["/models/mnist/stray", "/opt/mlpserve/stray", "/stray"])
def test_the_server_can_write_neither_the_store_nor_its_root(stack: Stack, path: str) -> None:
    refusal = stack.compose("exec", "-T", "server", "touch", path, expect=1)

    assert "Read-only file system" in refusal


CONTENTS = """
import importlib.util, json, pathlib, shutil, sys
modules, tools = json.loads(sys.argv[1])
found = [name for name in modules if importlib.util.find_spec(name)]
found += filter(None, map(shutil.which, tools))
for folder in ("/opt", "/usr/local/lib"):
    found += map(str, pathlib.Path(folder).rglob("tests"))
print(json.dumps(found))
"""
BUILD_MODULES = ["pip", "ensurepip", "setuptools", "hatchling", "pytest", "mypy"]
BUILD_TOOLS = ["pip", "pip3", "cc", "gcc", "g++", "clang", "ld", "make", "git", "curl"]


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("server", ["sklearn", "scipy", "pandas", "joblib", "PIL"]),
        ("client", ["sklearn", "scipy", "pandas", "grpc_health", "grpc_reflection"]),
        ("trainer", ["grpc_health", "grpc_reflection"]),
    ],
)
def test_an_image_holds_nothing_that_it_does_not_need(
    built: Stack, image: str, modules: list[str]
) -> None:
    name = f"mlpserve-{image}:{TAG}"
    unwanted = json.dumps([[*BUILD_MODULES, *modules], BUILD_TOOLS])

    found = docker("run", "--rm", "--entrypoint", "python", name, "-c", CONTENTS, unwanted)
    facts = json.loads(docker("image", "inspect", name))[0]

    megabytes = facts["Size"] / 1e6
    print(f"\n{name}: {megabytes:.0f} MB")
    assert json.loads(found) == []
    # The trainer's are pandas, SciPy, scikit-learn and, for the report, matplotlib.
    assert megabytes < {"server": 200, "client": 225, "trainer": 500}[image]
    assert facts["Config"]["Labels"]["org.opencontainers.image.version"] == version("mlpserve")


def test_stopping_the_server_during_calls_loses_none(stack: Stack) -> None:
    image = load_digits().images[0].astype(np.uint8)
    over, failures, answers = threading.Event(), [], []

    def call() -> None:
        with Client(stack.target, timeout=30) as client:
            while not over.is_set():
                try:
                    answers.append(client.predict(image).label)
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stack.compose("restart", "server")
    wait_for_answers = len(answers) + 100
    wait_for(lambda: len(answers) > wait_for_answers or bool(failures), 30)
    over.set()
    for thread in threads:
        thread.join()

    print(f"\n{len(answers)} calls over a restart, {len(failures)} failed")
    assert failures == []
    assert set(answers) == {0}


def test_down_drains_and_ends_with_0(stack: Stack) -> None:
    seen = len(stack.events("server"))
    container = stack.container("server")
    stack.compose("stop", "server")
    events = stack.events("server")[seen:]  # one of each from every worker
    assert set(events) == {"draining", "stopped"}
    assert events[-1] == "stopped"
    assert stack.inspect("server")["State"]["ExitCode"] == 0

    stack.up()
    with subprocess.Popen(["docker", "wait", container], stdout=subprocess.PIPE, text=True) as wait:
        started = time.monotonic()
        stack.compose("down")
        exit_code, _ = wait.communicate(timeout=30)

    print(f"\ndown: {time.monotonic() - started:.1f} s")
    assert exit_code.strip() == "0"


def test_the_models_survive_down(stack: Stack) -> None:
    served = stack.served()
    stack.compose("down")

    stack.up()

    assert stack.served() == served

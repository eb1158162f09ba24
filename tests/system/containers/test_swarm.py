"""A Docker Swarm of one node: three replicas, updated one by one while callers call."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.containers import Load, NewStack, Stack

FOLDER = Path(__file__).parents[3] / "deploy/swarm"
NEXT = "mlpserve-server:test-next"
REPLICAS = 3
CALLS = 4_000
CALLS_A_MODEL = 30
# Calls models by turns, and counts the answers; each call has the next replica.
MANY_CALLS = f"""
import collections, json, sys
import numpy as np
from mlpserve_client import Client, MlpserveError
counts = collections.Counter()
with Client() as client:
    for model in {CALLS_A_MODEL} * sys.argv[1:]:
        try:
            answer = client.predict(np.zeros((8, 8), np.uint8), model=model)
            counts[f"{{answer.model.name}} {{answer.model.version}}"] += 1
        except MlpserveError as error:
            counts[type(error).__name__] += 1
print(json.dumps(counts))
"""

pytestmark = [pytest.mark.swarm, pytest.mark.timeout(600)]


class Swarm:
    """A stack of its own."""

    def __init__(self, stack: Stack) -> None:
        self.name = f"mlpserve-test-{uuid4().hex[:8]}"
        self.environment = stack.environment
        self.docker: Callable[..., str] = stack.docker
        self.wait_for: Callable[..., float] = stack.wait_for

    def deploy(self, *names: str) -> None:
        """Deploy files of the folder; again, to change what differs."""
        files = [word for name in names for word in ("--compose-file", str(FOLDER / name))]
        flags = ("--detach=true", "--resolve-image", "never", *files)
        self.docker("stack", "deploy", *flags, self.name, environment=self.environment)

    def tasks(self) -> set[str]:
        """Return the replicas that should run."""
        flags = ("--quiet", "--filter", "desired-state=running")
        return set(self.docker("service", "ps", *flags, f"{self.name}_server").split())

    def running(self, image: str) -> int:
        """How many replicas run an image."""
        command = ("service", "ps", "--format", "{{json .}}", f"{self.name}_server")
        tasks = [json.loads(line) for line in self.docker(*command).splitlines()]
        states = [task["CurrentState"] for task in tasks if task["Image"] == image]
        return sum(state.startswith("Running") for state in states)

    def wait_for_replicas(self, image: str, seconds: float = 120) -> float:
        """Wait until all replicas run an image, and none another."""
        command = (
            "service",
            "inspect",
            f"{self.name}_server",
            "--format",
            "{{json .UpdateStatus}}",
        )

        def settled() -> bool:
            status = json.loads(self.docker(*command)) or {"State": "completed"}
            assert "rollback" not in status["State"], status
            assert status["State"] != "paused", status
            return status["State"] == "completed" and self.running(image) == REPLICAS

        return self.wait_for(settled, seconds)

    def run(self, image: str, *arguments: str, entrypoint: str = "") -> str:
        """Run a one-off container beside the servers, with their store."""
        where = ("--network", f"{self.name}_calls", "--volume", f"{self.name}_models:/models")
        how = ("--env", "MLPSERVE_TARGET=server:50051", "--entrypoint", entrypoint)
        flags = ("--rm", *where, *(how if entrypoint else how[:2]))
        told: str = self.docker("run", *flags, image, *arguments)
        return told

    def page_is_ready(self) -> bool:
        """Whether the page runs, and the servers behind it are ready."""
        label = f"label=com.docker.swarm.service.name={self.name}_web"
        container = self.docker("ps", "--quiet", "--filter", label).strip()
        code = (
            "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/v2/health/ready')"
        )
        told = container and self.docker(
            *("exec", container, "python", "-c", f"{code}; print('ready')"), expect=None
        )
        return told.strip() == "ready"

    def remove(self) -> None:
        label = f"label=com.docker.stack.namespace={self.name}"
        self.docker("stack", "rm", self.name)
        self.wait_for(lambda: not self.docker("ps", "-aq", "--filter", label), 60)
        self.wait_for(lambda: not self.docker("network", "ls", "-q", "--filter", label), 60)
        for volume in self.docker("volume", "ls", "-q", "--filter", label).split():
            self.docker("volume", "rm", volume)


@contextmanager
def deployed(stack: Stack, *files: str) -> Iterator[Swarm]:
    """Files on an engine that is a swarm for as long as this takes."""
    swarm = Swarm(stack)
    state = swarm.docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip()
    if state != "inactive":
        pytest.skip(f"this engine's swarm is {state}: not to be meddled with")
    # Its own addresses would be of 10.0.0.0/8, where the machine's network may be.
    pool = ("--default-addr-pool", "172.31.0.0/16", "--default-addr-pool-mask-length", "24")
    swarm.docker("swarm", "init", "--advertise-addr", "127.0.0.1", *pool)
    try:
        try:
            swarm.deploy(*files)
            yield swarm
        finally:
            swarm.remove()
    finally:
        swarm.docker("swarm", "leave", "--force")


@pytest.fixture
def swarm(new_stack: NewStack, images: dict[str, str]) -> Iterator[Swarm]:
    """The stack as it is."""
    with deployed(new_stack(servers=REPLICAS), "stack.yml") as swarm:
        yield swarm


@pytest.fixture
def swarm_of_models(new_stack: NewStack, images: dict[str, str]) -> Iterator[Swarm]:
    """The stack with a second model."""
    with deployed(new_stack(servers=REPLICAS), "stack.yml", "models.yml") as swarm:
        yield swarm


@pytest.fixture
def next_image(images: dict[str, str], engine: None, new_stack: NewStack) -> Iterator[str]:
    """A second image of the server, of another revision."""
    docker = new_stack().docker
    arguments = ("--build-arg", "REVISION=next", "--target", "server", "--tag", NEXT)
    docker("build", *arguments, ".")
    yield NEXT
    docker("image", "rm", "--force", NEXT)


def test_a_rolling_update_and_a_rollback_under_load_fail_no_call(
    swarm: Swarm, images: dict[str, str], next_image: str, load_on: type[Load]
) -> None:
    swarm.wait_for_replicas(images["server"])
    # Batches take long enough for some to be under way whenever a replica stops.
    load = load_on(f"{swarm.name}_calls", threads=6, rows=2000)

    swarm.docker("service", "update", "--detach", "--image", next_image, f"{swarm.name}_server")
    updated = swarm.wait_for_replicas(next_image)
    swarm.docker("service", "rollback", "--detach", f"{swarm.name}_server")
    swarm.wait_for(lambda: swarm.running(images["server"]) == REPLICAS, 120)
    swarm.wait_for(lambda: swarm.running(next_image) == 0, 120)

    told = load.stop()
    failed = {name: count for name, count in told["counts"].items() if "version" not in name}
    calls = sum(told["counts"].values())
    print(
        f"\n{REPLICAS} replicas updated in {updated:.0f} s and rolled back: "
        f"{calls} calls, {sum(failed.values())} failed, the slowest {told['slowest']:.2f} s"
    )
    assert failed == {}
    assert calls >= CALLS


def test_the_page_of_the_stack_reaches_the_servers(swarm: Swarm) -> None:
    swarm.wait_for(swarm.page_is_ready, 180)


def test_models_come_and_break_without_each_other(
    swarm_of_models: Swarm, images: dict[str, str]
) -> None:
    swarm, (first, second, third) = swarm_of_models, ("mnist", "digits", "letters")

    def answered(*models: str) -> dict[str, int]:
        """Call each model many times, of all replicas; gives the answers by model and version."""
        told = swarm.run(images["client"], "-c", MANY_CALLS, *models, entrypoint="python")
        counts: dict[str, int] = json.loads(told.splitlines()[-1])
        return counts

    def all_answer(*models: str) -> bool:
        return answered(*models) == {f"{model} 1": CALLS_A_MODEL for model in models}

    swarm.wait_for_replicas(images["server"])
    assert all_answer(first), "ready before the first model answers"
    swarm.wait_for(lambda: all_answer(first, second), 120)
    replicas = swarm.tasks()

    swarm.run(images["trainer"], "train", "--model", third, "--dataset", "digits")
    swarm.wait_for(lambda: all_answer(first, second, third), 30)
    assert swarm.tasks() == replicas, "without a new replica"

    # Under a name of its own, since the version in memory of a model that is served goes on.
    damage = "cp -r /models/letters /models/broken && echo damaged >/models/broken/1/model.npz"
    swarm.run(images["trainer"], "-c", damage, entrypoint="sh")
    swarm.wait_for(lambda: answered("broken") == {"NotReadyError": CALLS_A_MODEL}, 30)
    assert all_answer(first, second, third)
    assert swarm.tasks() == replicas


@pytest.mark.parametrize("extra", ["nfs.yml", "publish.yml", "encrypted.yml"])
def test_docker_accepts_the_stack_with_an_extra_file(extra: str, new_stack: NewStack) -> None:
    stack = new_stack()
    environment = stack.environment | {"MLPSERVE_NFS_SERVER": "nfs", "MLPSERVE_NFS_PATH": "/models"}
    files = ["--compose-file", str(FOLDER / "stack.yml"), "--compose-file", str(FOLDER / extra)]

    config = stack.docker("stack", "config", *files, environment=environment)

    assert {"nfs.yml": "type: nfs", "publish.yml": "mode: host"}.get(extra, "encrypted") in config
    assert "${" not in config  # stacks know no default inside a default, and say nothing of it

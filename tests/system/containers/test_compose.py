"""The compose file on a real Docker engine, from nothing to an answer and back to nothing."""

import json
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlpserve_client import Client, NotReadyError
from mlpserve_server.settings import Settings
from tests.support.containers import Callers, NewStack, Stack

POLL_SECONDS = 1.0
# Not more than the engine itself takes to answer on a busy machine.
SLACK_SECONDS = 1.0

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


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
    assert said[-1] == "nothing to train"
    assert stack.inspect("trainer")["State"]["ExitCode"] == 0
    # Not by the times at which they started and ended: a trainer with nothing to do may be faster
    # than the engine, which starts the server after it.
    waits_for = stack.inspect("server")["Config"]["Labels"]["com.docker.compose.depends_on"]
    assert "trainer:service_started" in waits_for, "it waits for no training"


def test_the_server_picks_up_a_retraining_and_a_rollback(stack: Stack) -> None:
    before = stack.served()
    stack.another_version()
    swap = stack.wait_for(lambda: stack.served() > before, 2 * POLL_SECONDS + SLACK_SECONDS)

    stack.models("rollback", "--to", str(before), "--reason", "a test")
    back = stack.wait_for(lambda: stack.served() == before, 2 * POLL_SECONDS + SLACK_SECONDS)

    print(f"\nserved {swap:.2f} s after the training ended, {back:.2f} s after the rollback")


def test_a_host_folder_is_the_trainers_data(new_stack: NewStack, tmp_path: Path) -> None:
    digits = load_digits()
    np.savez(tmp_path / "mine.npz", X=digits.images.astype(np.uint8), y=digits.target, maximum=16)
    tmp_path.chmod(0o755)  # the container's user is nobody on the host
    stack = new_stack(MLPSERVE_DATA_DIR=str(tmp_path))

    trained = stack.run(
        "trainer", "train", "--dataset", "npz", "--epochs", "1", "--force", "--reason", "test"
    )

    assert "npz: 1,797 rows from /data/mine.npz" in trained


def test_a_data_folder_that_is_not_there_is_refused_and_not_made(
    new_stack: NewStack, tmp_path: Path
) -> None:
    stack = new_stack(MLPSERVE_DATA_DIR=str(tmp_path / "typo"))

    said = stack.run("trainer", "train", expect=1)

    assert f"source path does not exist: {tmp_path}/typo" in said
    assert not (tmp_path / "typo").exists()


def test_a_rejected_first_training_leaves_a_server_that_waits_for_a_better_one(
    new_stack: NewStack,
) -> None:
    stack = new_stack(MLPSERVE_MIN_ACCURACY="1")

    stack.compose("up", "--detach")

    assert stack.inspect("trainer")["State"]["ExitCode"] == 3
    # Before it listens, the engine's proxy accepts connections in its place, and drops them.
    stack.wait_for(lambda: "waiting for a model" in stack.events("server"), 60)
    with Client(stack.target) as client:
        with pytest.raises(NotReadyError):
            client.wait_until_ready(timeout=5)
        stack.run("trainer", "train", "--min-accuracy", "0.5")
        stack.wait_for(client.health, 2 * POLL_SECONDS + SLACK_SECONDS)


def test_every_setting_of_the_server_passes_through(new_stack: NewStack) -> None:
    config = json.loads(new_stack().compose("config", "--format", "json"))
    passed = config["services"]["server"]["environment"].keys()
    names = {f"MLPSERVE_{field.name.upper()}" for field in fields(Settings)}
    # The image says where the server listens and keeps its cache; what a worker is given is its
    # parent's business.
    elsewhere = {"LISTEN", "CACHE_DIR", "WORKER", "METRICS_LINE", "WATCH_LINE"}
    assert names - {f"MLPSERVE_{name}" for name in elsewhere} == set(passed)


def test_up_builds_the_image_of_the_client_and_starts_none(stack: Stack) -> None:
    client = json.loads(stack.compose("config", "--format", "json"))["services"]["client"]

    assert "build" in client
    assert "profiles" not in client, "up builds no service of a profile"
    assert not stack.containers("client")


def test_several_servers_need_no_range_of_ports(new_stack: NewStack) -> None:
    stack = new_stack(servers=3)
    del stack.environment["MLPSERVE_PORT"]

    (port,) = json.loads(stack.compose("config", "--format", "json"))["services"]["server"]["ports"]

    first, last = map(int, port["published"].split("-"))
    assert last - first + 1 >= 3


def test_a_training_finds_the_list_of_fonts_in_its_cache(stack: Stack) -> None:
    entry = ("--rm", "--no-TTY", "--no-deps", "--entrypoint", "ls")
    assert "fontlist" in stack.compose("run", *entry, "trainer", "/cache/matplotlib")
    assert "font cache" not in stack.docker("logs", stack.container("trainer"))


def test_stopping_a_training_ends_it_at_once_and_publishes_nothing(stack: Stack) -> None:
    before = stack.models("list")
    command = ("run", "--detach", "trainer", "train", "--epochs", "1000000")
    training = stack.compose(*command).splitlines()[0]
    stack.wait_for(lambda: '"epoch": 1,' in stack.docker("logs", training), 60)

    started = time.monotonic()
    stack.docker("stop", "--time", "30", training)

    assert time.monotonic() - started < 10
    assert "interrupted: nothing was published" in stack.docker("logs", training)
    assert stack.models("list") == before
    stack.docker("rm", training)


def test_containers_have_no_rights_that_they_do_not_need(stack: Stack) -> None:
    for service in ("server", "trainer", "web"):
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


def test_stopping_the_server_during_calls_loses_none(
    stack: Stack, callers_of: type[Callers]
) -> None:
    with callers_of(stack.target) as callers:
        callers.wait_for_more()
        stack.compose("restart", "server")
        callers.wait_for_more()

    print(f"\n{len(callers.labels)} calls over a restart, {len(callers.failures)} failed")
    assert callers.failures == []
    assert set(callers.labels) == {0}


def test_down_drains_and_ends_with_0(stack: Stack) -> None:
    seen = len(stack.events("server"))
    stack.compose("stop", "server")
    events = stack.events("server")[seen:]  # one of each from every worker
    assert set(events) == {"draining", "stopped"}
    assert events[-1] == "stopped"
    assert stack.inspect("server")["State"]["ExitCode"] == 0

    stack.up()
    command = ["docker", "wait", stack.container("server")]  # perhaps another than before
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wait:
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

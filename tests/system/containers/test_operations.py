"""The procedures of docs/operations.md, run as they are written; faults of the store's volume."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import NewStack, Stack

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs/operations.md"
POLLS_AND_SLACK = 3.0  # seconds: two polls, and what the engine takes on a busy machine

pytestmark = [pytest.mark.operations, pytest.mark.timeout(600)]


def blocks(heading: str) -> list[str]:
    """The shell blocks of one procedure."""
    section = DOCUMENT.read_text().split(f"\n### {heading}\n")[1].split("\n### ")[0]
    found = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found


def perform(stack: Stack, folder: Path, *commands: str) -> str:
    """Run commands in one shell, as someone would type them; the first failure ends them."""
    (models,) = re.findall(r"^models\(\).*$", DOCUMENT.read_text(), re.MULTILINE)
    # What they write lands in a folder of the test's own.
    environment = stack.environment | {
        "COMPOSE_PROJECT_NAME": stack.name,
        "COMPOSE_FILE": str(ROOT / "docker-compose.yml"),
    }
    script = "\n".join([models, *commands])
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def stack(new_stack: NewStack) -> Stack:
    return new_stack(MLPSERVE_MIN_ACCURACY="0.5")


def test_first_deployment(new_stack: NewStack, stack: Stack, tmp_path: Path) -> None:
    one, several = blocks("First deployment")
    free = new_stack(servers=3).environment["MLPSERVE_PORT"]

    said = perform(stack, tmp_path, one)
    servers = perform(stack, tmp_path, several.replace("50051-50053", free))

    assert "version 1" in said
    assert servers.count("(healthy)") == 3


def test_upgrade_and_rollback_of_the_service(stack: Stack, tmp_path: Path) -> None:
    (upgrade,) = blocks("Upgrade and rollback of the service")
    stack.up()
    try:
        perform(stack, tmp_path, upgrade)
        assert stack.inspect("server")["Config"]["Image"] == "mlpserve-server:next"
        assert stack.served() == 1

        stack.up()

        assert stack.inspect("server")["Config"]["Image"] == "mlpserve-server:test"
        assert stack.served() == 1
    finally:
        stack.compose("stop")
        for image in ("server", "trainer", "client", "web"):
            stack.docker("image", "rm", "--force", f"mlpserve-{image}:next", expect=None)


def test_rollback_of_a_model(stack: Stack, tmp_path: Path) -> None:
    (rollback,) = blocks("Rollback of a model")
    stack.up()
    stack.another_version()
    stack.wait_for(lambda: stack.served() == 2, POLLS_AND_SLACK)

    said = perform(stack, tmp_path, rollback)

    assert "1" in said
    stack.wait_for(lambda: stack.served() == 1, POLLS_AND_SLACK)


def test_certificates_and_tokens(new_stack: NewStack, stack: Stack, tmp_path: Path) -> None:
    (rotation,) = blocks("Certificates and tokens")
    stack.environment["MLPSERVE_TLS_PORT"] = new_stack().environment["MLPSERVE_PORT"]

    said = perform(stack, tmp_path, rotation)

    assert "2 token(s) in force" in said
    assert "1 token(s) in force" in said
    assert said.splitlines()[-1] == "ready"


def test_backup_and_restore_of_the_store(stack: Stack, tmp_path: Path) -> None:
    backup, restore = blocks("Backup and restore of the store")
    stack.up()
    stack.another_version()
    stack.models("rollback", "--to", "1", "--reason", "to be restored as well")
    before = stack.models("list", "--json")

    perform(stack, tmp_path, backup, restore)

    assert stack.models("list", "--json") == before
    assert stack.served() == 1


class SmallVolume:
    """A store of a few megabytes in memory, filled and emptied by a container that keeps it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        volume = self.name = f"{stack.name}_models"
        size = (
            "--opt",
            "type=tmpfs",
            "--opt",
            "device=tmpfs",
            "--opt",
            "o=size=4m,uid=10001,gid=10001",
        )
        stack.docker("volume", "create", *size, volume)
        mount = ("--volume", f"{volume}:/models", "--user", "0", "--entrypoint", "sleep")
        self.keeper = stack.docker(
            "run", "--detach", *mount, "mlpserve-trainer:test", "600"
        ).strip()

    def shell(self, command: str) -> None:
        self._stack.docker("exec", self.keeper, "sh", "-c", command)


@pytest.fixture
def small(stack: Stack) -> Iterator[SmallVolume]:
    """A server that serves version 1 of a small volume."""
    small = SmallVolume(stack)
    try:
        stack.up()
        assert stack.served() == 1
        yield small
    finally:
        stack.compose("down")
        stack.docker("rm", "--force", small.keeper)
        stack.docker("volume", "rm", small.name)  # not compose's own, which would remove it


def refused(stack: Stack, *flags: str) -> str:
    """Train in vain; gives the one line that says why."""
    command = ("run", "--rm", "--no-TTY", "--no-deps", *flags, "trainer", "train", "--seed", "7")
    said: str = stack.compose(*command, expect=1)
    assert "Traceback" not in said
    assert stack.served() == 1
    (reason,) = [line for line in said.splitlines() if line.startswith("mlpserve-trainer:")]
    print(f"\n{reason}")
    return reason


def test_disk_full(stack: Stack, small: SmallVolume, tmp_path: Path) -> None:
    (room, _) = blocks("Disk full")
    stack.another_version()
    stack.models("rollback", "--to", "1", "--reason", "a test")
    stack.wait_for(lambda: stack.served() == 1, POLLS_AND_SLACK)
    small.shell("head -c 10M /dev/zero >/models/filler || true")

    assert "No space left" in refused(stack)

    small.shell("rm /models/filler")
    perform(stack, tmp_path, room.replace("train\n", "train --seed 7 --force --reason test\n"))
    stack.wait_for(lambda: stack.served() > 2, POLLS_AND_SLACK)


def test_a_full_disk_can_be_pruned(stack: Stack, small: SmallVolume) -> None:
    for _ in range(2):
        stack.another_version()
    small.shell("head -c 10M /dev/zero >/models/filler || true")
    refused_nothing = stack.models("prune", "--keep", "1")
    assert "1" in refused_nothing


def test_a_volume_of_another_owner(stack: Stack, small: SmallVolume, tmp_path: Path) -> None:
    (_, chown) = blocks("Disk full")
    small.shell("chown -R 0:0 /models && chmod -R go-w /models")

    assert "Permission denied" in refused(stack)

    perform(stack, tmp_path, chown)
    stack.another_version()
    stack.wait_for(lambda: stack.served() == 2, POLLS_AND_SLACK)


def test_a_volume_mounted_read_only(stack: Stack, small: SmallVolume) -> None:
    volume = f"{stack.name}_models:/models:ro"
    assert "Read-only file system" in refused(stack, "--volume", volume)

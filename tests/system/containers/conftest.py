"""Images and compose projects on a real Docker engine."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import ROOT, TAG, Callers, Load, NewStack, Sbom, Stack, docker

TARGETS = ("server", "trainer", "client", "web")


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip where there is no engine."""
    try:
        docker("info")
        docker("compose", "version")
    except (OSError, AssertionError) as error:
        pytest.skip(f"no Docker engine with compose answers: {error}")


@pytest.fixture(scope="session")
def images(engine: None) -> dict[str, str]:
    """All images, built from this checkout; by target."""
    started = time.monotonic()
    Stack().compose("build")
    print(f"\nimages built (cached where nothing changed): {time.monotonic() - started:.1f} s")
    return {target: f"mlpserve-{target}:{TAG}" for target in TARGETS}


@pytest.fixture
def new_stack(images: dict[str, str]) -> Iterator[NewStack]:
    """Make compose projects that are gone after the test."""
    stacks: list[Stack] = []

    def make(servers: int = 1, **environment: str) -> Stack:
        stacks.append(Stack(servers, **environment))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.down()


@pytest.fixture(scope="module")
def built(images: dict[str, str]) -> Iterator[Stack]:
    """Everything brought up from nothing, once for a module."""
    stack = Stack()
    try:
        print(f"\nfrom nothing to healthy: {stack.up():.1f} s")
        yield stack
    finally:
        stack.down()


@pytest.fixture
def stack(built: Stack) -> Stack:
    """The same, brought up again after a test that stopped it."""
    if not built.container("server") or not built.inspect("server")["State"]["Running"]:
        built.up()
    return built


@pytest.fixture
def callers_of() -> type[Callers]:
    """Callers of a server or of several."""
    return Callers


@pytest.fixture
def load_on(images: dict[str, str]) -> type[Load]:
    """Callers in a container on a network."""
    return Load


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what images are built from, to be changed."""
    admitted = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for name in ("Dockerfile", ".dockerignore", *admitted):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def sbom(tmp_path: Path) -> Sbom:
    """Describe an image as `make sbom` does."""

    def describe(image: str) -> dict[str, Any]:
        command = [sys.executable, str(ROOT / "deploy/sbom.py"), str(tmp_path), image]
        subprocess.run(command, check=True)
        described: dict[str, Any] = json.loads(
            (tmp_path / f"{image.partition(':')[0]}.cdx.json").read_text()
        )
        return described

    return describe

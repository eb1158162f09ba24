"""What the images hold, that they can be made again, and that nothing else gets in."""

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import NewStack, Sbom, Stack

TARGETS = ("server", "trainer", "client", "web")
# Megabytes. Of the server's, Python's slim base is 60 %, numpy with OpenBLAS 25 %, grpcio 10 %.
# The trainer's are pandas, SciPy, scikit-learn and, for the report, matplotlib.
LIMITS = {"server": 200, "client": 225, "web": 225, "trainer": 500}
BUILD_MODULES = ["pip", "ensurepip", "setuptools", "hatchling", "pytest", "mypy"]
BUILD_TOOLS = ["pip", "pip3", "cc", "gcc", "g++", "clang", "ld", "make", "git", "curl"]
UNWANTED = {
    "server": ["sklearn", "scipy", "pandas", "joblib", "PIL", "obstore", "opentelemetry.sdk"],
    "client": ["sklearn", "scipy", "pandas", "grpc_health", "grpc_reflection"],
    "web": ["sklearn", "scipy", "pandas", "grpc_health", "grpc_reflection"],
    "trainer": ["grpc_health", "grpc_reflection"],
}
CONTENTS = """
import importlib.util, json, pathlib, shutil, sys
modules, tools = json.loads(sys.argv[1])
found = []
for name in modules:
    try:
        found += [name] if importlib.util.find_spec(name) else []
    except ModuleNotFoundError:
        pass
found += filter(None, map(shutil.which, tools))
for folder in ("/opt", "/usr/local/lib"):
    found += map(str, pathlib.Path(folder).rglob("tests"))
for cache in ("/root/.cache", "/var/cache/apt/archives", "/var/lib/apt/lists", "/locks", "/dist"):
    try:
        found += map(str, pathlib.Path(cache).rglob("*.*"))
    except PermissionError:
        found.append(f"{cache} cannot be read")
print(json.dumps(found))
"""
INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps(sorted([each.name, each.version] for each in distributions())))
"""
# Paths and contents of what is installed; no times, which pip takes from the clock.
DIGESTS = """
import hashlib, json, pathlib
files = [path for path in pathlib.Path("/opt/mlpserve").rglob("*") if path.is_file()]
print(json.dumps({str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}))
"""

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


def python(stack: Stack, image: str, code: str, *arguments: str) -> Any:
    """Run Python inside an image as root, who can look everywhere."""
    command = ("run", "--rm", "--user", "0", "--entrypoint", "python", image, "-c", code)
    return json.loads(stack.docker(*command, *arguments))


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_nothing_that_it_does_not_need(
    new_stack: NewStack, images: dict[str, str], target: str
) -> None:
    image, stack = images[target], new_stack()
    unwanted = json.dumps([[*BUILD_MODULES, *UNWANTED[target]], BUILD_TOOLS])

    found = python(stack, image, CONTENTS, unwanted)
    facts = json.loads(stack.docker("image", "inspect", image))[0]

    megabytes = facts["Size"] / 1e6
    print(f"\n{image}: {megabytes:.0f} MB")
    assert found == []
    assert megabytes < LIMITS[target]
    assert facts["Config"]["User"] == "10001:10001"
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version("mlpserve")
    assert labels["org.opencontainers.image.revision"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_sbom_of_an_image_lists_what_is_installed_in_it(
    new_stack: NewStack,
    images: dict[str, str],
    sbom: Sbom,
    target: str,
) -> None:
    image, stack = images[target], new_stack()

    components = sbom(image)["components"]

    installed = python(stack, image, INSTALLED)
    command = ("run", "--rm", "--entrypoint", "dpkg-query", image, "-W", "-f")
    debian = stack.docker(*command, "${Package} ${Version}\\n").splitlines()
    deb = [each for each in components if each.get("purl", "").startswith("pkg:deb/")]
    wheels = [each for each in components if each not in deb and each["name"] != "python"]
    print(f"\n{image}: {len(wheels)} Python packages, {len(deb)} of Debian")
    assert sorted([each["name"], each["version"]] for each in wheels) == installed
    assert [f"{each['name']} {each['version']}" for each in deb] == debian


def test_another_build_without_caches_installs_the_same_bytes(
    new_stack: NewStack, images: dict[str, str], source: Path
) -> None:
    again, stack = "mlpserve-server:test-again", new_stack()
    uncached = ("--no-cache-filter", "server-dependencies,mlpserve")
    try:
        stack.docker("build", *uncached, "--target", "server", "--tag", again, str(source))

        first, second = [python(stack, image, DIGESTS) for image in (images["server"], again)]
    finally:
        stack.docker("image", "rm", "--force", again)

    different = {path for path, _ in first.items() ^ second.items()}
    assert different == set()


def test_a_build_fails_when_the_hashes_of_one_package_are_changed(
    engine: None, source: Path
) -> None:
    lock = source / "deploy/locks/client.txt"
    whole = lock.read_text()
    protobuf = re.search(r"^protobuf==.*\n( +--hash=.*\n)+", whole, re.MULTILINE)
    assert protobuf
    changed = re.sub("sha256:....", "sha256:0000", protobuf[0])
    lock.write_text(whole.replace(protobuf[0], changed))

    command = ["docker", "build", "--target", "client-dependencies", str(source)]
    built = subprocess.run(command, text=True, capture_output=True)

    assert built.returncode != 0
    assert "DO NOT MATCH THE HASHES" in built.stderr

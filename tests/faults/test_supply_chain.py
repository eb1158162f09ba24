"""What is installed is what the locks say, under licences that allow it, byte for byte."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import Marker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "locks"
SHIPPED = ("client", "server", "server-full", "trainer")

# Each of them allows use, change and redistribution.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-CMU",
    "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
# How older packages say it: a classifier's last part, or a short text.
SAID = {
    "MIT License": "MIT", "BSD License": "BSD", "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0", "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip


def pins(lock: str) -> dict[str, str]:
    """The versions of a lock by the names of their packages, those for this Python and system."""
    text = (LOCKS / f"{lock}.txt").read_text()
    lines = re.findall(r"^([\w.-]+)==([^\s;\\]+)(?: *; *([^\n\\]+))?", text, re.MULTILINE)
    return {
        name: version
        for name, version, marker in lines
        if not marker or Marker(marker.strip()).evaluate()
    }


def licences(found: Distribution) -> set[str]:
    """The licences that a package must be used under, of several to choose from the allowed."""
    said_of_it = found.metadata.json  # its keys in lower case, with underscores
    if expression := str(said_of_it.get("license_expression", "")):
        every = [part.strip("() ") for part in expression.split(" AND ")]
        choices = [{each.strip("() ") for each in part.split(" OR ")} for part in every]
        return {min(choice, key=lambda each: each not in ALLOWED) for choice in choices}
    classifiers = list(said_of_it.get("classifier", []))
    said = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    said = said or str(said_of_it.get("license", "none")).splitlines()[:1]
    return {SAID.get(each, each) for each in said}


@pytest.mark.parametrize("lock", SHIPPED)
def test_what_is_tested_is_what_the_lock_says_and_its_licences_allow_it(lock: str) -> None:
    wanted = pins(lock)
    installed = {name: distribution(name).version for name in wanted}
    found = {name: licences(distribution(name)) for name in wanted}
    print(f"\n{lock}: {len(wanted)} packages under {sorted(set().union(*found.values()))}")
    assert installed == wanted
    assert {name: each for name, each in found.items() if not each <= ALLOWED} == {}


def test_a_licence_that_does_not_allow_it_is_seen(tmp_path: Path) -> None:
    for text, expected in (
        ("License-Expression: AGPL-3.0-only OR GPL-3.0-only", False),
        ("License-Expression: MIT AND GPL-3.0-only", False),
        ("License-Expression: GPL-3.0-only OR MIT", True),
        ("Classifier: License :: OSI Approved :: GNU General Public License (GPL)", False),
        ("Name: without", False),
    ):
        (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.4\n{text}\n")
        assert (licences(Distribution.at(tmp_path)) <= ALLOWED) == expected, text


@pytest.mark.parametrize("lock", SHIPPED)
def test_an_install_fails_when_one_hash_is_changed(lock: str, tmp_path: Path) -> None:
    text = (LOCKS / f"{lock}.txt").read_text()
    blocks = re.findall(r"^[\w.-]+==.*\n(?: +--hash=.*\n)+", text, re.MULTILINE)
    block = min(blocks, key=lambda each: each.count("--hash"))  # one wheel for every system
    requirements = tmp_path / "requirements.txt"

    def install(wanted: str) -> subprocess.CompletedProcess[str]:
        requirements.write_text(wanted)
        command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--no-deps"]
        command += ["--target", str(tmp_path / "target"), "-r", str(requirements)]
        return subprocess.run(command, capture_output=True, text=True)

    whole, changed = install(block), install(re.sub("sha256:....", "sha256:0000", block))
    print(f"\n{lock}: {block.split()[0]} with its hashes: exit code {whole.returncode}, with "
          f"others: {changed.returncode}")  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    assert changed.returncode != 0
    assert "DO NOT MATCH THE HASHES" in changed.stderr


def test_every_install_of_the_images_needs_hashes() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&\n]*)", text)
    assert len(installs) > 4
    assert "PIP_NO_DEPS=1" in text  # so that what is built here brings nothing else
    built_here = re.compile(r"--root /staging /dist/mlpserve-\S+\.whl")
    unlocked = [each for each in installs if not built_here.match(each)]
    assert [each for each in unlocked if not each.startswith("--require-hashes")] == []


def test_the_sbom_of_an_environment_lists_what_is_installed_in_it() -> None:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    described = subprocess.run([*command, sys.executable], capture_output=True, text=True)
    components = json.loads(described.stdout)["components"]
    listed = {(each["name"], each["version"]) for each in components}
    installed = {(each.name, each.version) for each in distributions()}
    print(f"\nSBOM: {len(listed)} of {len(installed)} packages")
    assert listed == installed


def _wheel(source: Path, target: Path, epoch: str) -> str:
    """Build the wheel of a checkout; returns its digest."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run(
        [*command, "--outdir", str(target), str(source)],
        check=True,
        capture_output=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": epoch},
    )
    (wheel,) = target.iterdir()
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _copy(target: Path) -> Path:
    """Copy what belongs to the project, with new times."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    return target


def test_a_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    one, other = _copy(tmp_path / "one"), _copy(tmp_path / "another" / "place")
    for path in other.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o775 if path.is_dir() else 0o664)
    digests = [
        _wheel(one, tmp_path / "1", "1700000000"),
        _wheel(other, tmp_path / "2", "1700000000"),
        _wheel(one, tmp_path / "3", "1500000000"),
    ]
    print(f"\nwheels of two checkouts: {digests[0][:16]} {digests[1][:16]}")
    assert digests[0] == digests[1]
    assert digests[2] != digests[0], "the wheel has times, or the comparison shows nothing"

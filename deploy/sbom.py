"""Write what images are made of as CycloneDX: `python deploy/sbom.py FOLDER IMAGE...`.

What counts is what is installed in the image, not what a lock file promises: Python's
packages as cyclonedx-py finds them, Python itself, and Debian's packages.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

VERSION = SchemaVersion.V1_6
PURELIB = 'import sysconfig; print(sysconfig.get_path("purelib"))'


def run(*command: str) -> str:
    """Run a command; raises CalledProcessError when it fails."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def inside(image: str, *command: str) -> str:
    """Run a program of the image."""
    entry, *arguments = command
    return run(
        "docker", "run", "--rm", "--network", "none", "--entrypoint", entry, image, *arguments
    )


def python_packages(image: str) -> dict[str, Any]:
    """Let cyclonedx-py describe what the metadata in the image's site-packages name."""
    with tempfile.TemporaryDirectory() as name:
        copy, interpreter = Path(name, "packages"), Path(name, "python")
        copy.mkdir()
        pack = f"cd $(python -c '{PURELIB}') && tar -cf - *.dist-info"
        command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image]
        packed = subprocess.run([*command, "-c", pack], check=True, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-xf", "-", "-C", str(copy)], check=True, input=packed.stdout)
        # It asks an interpreter for sys.path; the image's own does not run here.
        interpreter.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps([str(copy)]))}\n")
        interpreter.chmod(0o755)
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
        described: dict[str, Any] = json.loads(run(*tool, "--no-validate", str(interpreter)))
    return described


def debian_packages(image: str) -> list[dict[str, str]]:
    """Give a component for each package that dpkg knows."""
    lines = inside(image, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n")
    found = [line.split() for line in lines.splitlines()]
    return [
        library(name, version, f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}")
        for name, version, architecture in found
    ]


def library(name: str, version: str, purl: str) -> dict[str, str]:
    """Give one component."""
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def describe(image: str) -> str:
    """Return an image's SBOM as JSON.

    Raises:
        CalledProcessError: there is no such image, or a tool failed.
        ValueError: the result is not valid CycloneDX.

    """
    bom = python_packages(image)
    python = inside(
        image, "python", "-c", "import platform; print(platform.python_version())"
    ).strip()
    bom["components"] += [library("python", python, f"pkg:generic/python@{python}")]
    bom["components"] += debian_packages(image)
    labels = json.loads(run("docker", "image", "inspect", image))[0]["Config"]["Labels"]
    bom.setdefault("metadata", {})["component"] = {
        "type": "container",
        "bom-ref": "image",
        "name": image.partition(":")[0],
        "version": labels["org.opencontainers.image.version"],
    }
    text = json.dumps(bom, indent=1)
    if error := JsonStrictValidator(VERSION).validate_str(text):
        raise ValueError(f"{image}: {error}")
    return text


def main() -> None:
    """Write `FOLDER/<name>.cdx.json` for each image."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for image in sys.argv[2:]:
        target = folder / f"{image.partition(':')[0]}.cdx.json"
        target.write_text(describe(image))
        print(target)


if __name__ == "__main__":
    main()

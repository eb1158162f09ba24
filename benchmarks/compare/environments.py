"""Where the peers live: an environment for each, made with pinned versions, and what it weighs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

__all__ = [
    "ROOT",
    "Absent",
    "cpp_server",
    "distribution_bytes",
    "environment",
    "environment_bytes",
    "install",
    "linked_bytes",
    "open_loop",
    "version_in",
]

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OUR_PACKAGES = ("proto/mlpserve", "model/mlpserve_model", "server/mlpserve_server")
INSTALL_SECONDS = 600
# Triton's Python backend loads the system's libpython, which must be that of the interpreter.
PYTHONS = {"pytriton": "/usr/bin/python3"}
CPP_TOOLS = ("g++", "protoc", "grpc_cpp_plugin", "pkg-config")
CPP_LIBRARIES = ("grpc++", "protobuf", "openblas")
CPP_PACKAGES = "g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc libopenblas-dev pkgconf"


class Absent(Exception):
    """Something is not here; the text says what, and how to get it."""


def cache() -> Path:
    """The folder of all environments, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlpserve-bench"


def environment(name: str) -> Path:
    """The peer's virtual environment; raises Absent."""
    folder = cache() / name
    if not (folder / "installed").exists():
        raise Absent("not installed: run with --install")
    return folder


def install(name: str) -> None:
    """Create the environment of a peer unless it exists with the same pins; raises Absent."""
    pins = HERE / "requirements" / f"{name}.txt"
    folder = cache() / name
    done = folder / "installed"
    if done.exists() and done.read_text() == pins.read_text():
        return
    shutil.rmtree(folder, ignore_errors=True)
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--python", PYTHONS.get(name, sys.executable), str(folder)])
    python = str(folder / "bin" / "python")
    _run([*uv, "pip", "install", "--quiet", "--python", python, "-r", str(pins)])
    done.write_text(pins.read_text())


def version_in(folder: Path, package: str) -> str:
    """The version of a package that is installed in a virtual environment."""
    name = re.sub("[-_.]+", "_", package).lower()
    for info in folder.glob("lib/python*/site-packages/*.dist-info"):
        found, _, version = info.name.removesuffix(".dist-info").partition("-")
        if found.lower() == name:
            return version
    return "unknown"


def environment_bytes(folder: Path) -> int:
    """What the environment's packages weigh, compiled Python files aside."""
    files = (file for lib in folder.glob("lib/python*/site-packages") for file in lib.rglob("*"))
    return _bytes(files)


def distribution_bytes(*requirements: str) -> int:
    """As environment_bytes, for some of this environment: the requirements and all they need."""
    wanted, seen, total = list(map(Requirement, requirements)), set[str](), 0
    while wanted:
        one = wanted.pop()
        needs = map(Requirement, metadata.requires(one.name) or ())
        extras = one.extras or {""}
        wanted += [n for n in needs if not n.marker or any(map(n.marker.evaluate, _each(extras)))]
        if one.name not in seen:
            seen.add(one.name)
            total += _bytes(Path(str(file.locate())) for file in metadata.files(one.name) or ())
            # Installed in editable form, our own files lie in the repository.
            total += _our_bytes() if one.name == "mlpserve" else 0
    return total


def _our_bytes() -> int:
    return sum(_bytes((ROOT / package).rglob("*.py")) for package in OUR_PACKAGES)


def _each(extras: Iterable[str]) -> Iterator[dict[str, str]]:
    return ({"extra": extra} for extra in extras)


def cpp_server() -> Path:
    """The C++ server; raises Absent."""
    return _compiled("server", ("model", "prediction"))


def open_loop() -> Path:
    """The load generator that does not wait for answers; raises Absent."""
    return _compiled("open_loop", ())


def _compiled(name: str, contracts: Sequence[str]) -> Path:
    """Return the program, rebuilt if its source or a contract it is built with is newer."""
    missing = [tool for tool in CPP_TOOLS if not shutil.which(tool)]
    missing += [] if missing else [name for name in CPP_LIBRARIES if not _has_library(name)]
    if missing:
        raise Absent(f"no {', '.join(missing)} here; in Debian: {CPP_PACKAGES}")
    folder = cache() / "cpp"
    program = folder / name
    protos = [ROOT / "proto/mlpserve/v1" / f"{contract}.proto" for contract in contracts]
    sources = [HERE / f"cpp/{name}.cc", *protos]
    if program.exists() and program.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return program
    folder.mkdir(parents=True, exist_ok=True)
    _compile(folder, sources[0], protos, program)
    return program


def _compile(folder: Path, source: Path, protos: Sequence[Path], program: Path) -> None:
    generated = _stubs(folder, protos) if protos else []
    flags = ["-std=c++17", "-O3", "-march=native", f"-I{folder}"]
    libraries = _run(["pkg-config", "--cflags", "--libs", *CPP_LIBRARIES]).split()
    _run(["g++", *flags, str(source), *generated, "-o", str(program), *libraries])


def _stubs(folder: Path, protos: Sequence[Path]) -> list[str]:
    plugin = shutil.which("grpc_cpp_plugin")
    outputs = [f"--cpp_out={folder}", f"--grpc_out={folder}", f"--plugin=protoc-gen-grpc={plugin}"]
    _run(["protoc", f"-I{ROOT / 'proto'}", *outputs, *map(str, protos)])
    return [str(file) for file in (folder / "mlpserve/v1").glob("*.cc")]


def linked_bytes(program: Path) -> int:
    """The program and the shared libraries that it loads."""
    libraries = re.findall(r"=> (/\S+)", _run(["ldd", str(program)]))
    return sum(Path(file).stat().st_size for file in [program, *libraries])


def _has_library(name: str) -> bool:
    return subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Absent(f"{Path(command[0]).name} failed: {' | '.join(lines[-3:])[-400:]}")
    return done.stdout


def _bytes(files: Iterable[Path]) -> int:
    return sum(f.stat().st_size for f in files if f.suffix != ".pyc" and f.is_file())

"""Resolve what each image, development, the stub generator and the oldest run are made of.

The lock files hold versions and hashes for every supported Python and platform, and are
installed with plain `pip install --require-hashes`. The file for development is resolved
first; those for the images follow its versions, so that what is tested is what is shipped.
"""

import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"
ROOT = LOCKS.parent.parent
HEADER = "# Made by `make lock`. Versions and hashes of everything that is installed.\n"


def compile_lock(name: str, *arguments: str) -> None:
    """Write `locks/<name>.txt`; raises CalledProcessError when nothing satisfies it."""
    target = LOCKS / f"{name}.txt"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--upgrade"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--output-file", str(target), *arguments]
    subprocess.run(command, cwd=ROOT, check=True)
    target.write_text(HEADER + target.read_text())


def main() -> None:
    """Compile every lock file."""
    compile_lock("dev", "--group", "dev", "--all-extras", "pyproject.toml")
    like_dev = ("-c", str(LOCKS / "dev.txt"))
    compile_lock("build", "--group", "build", *like_dev)
    # One image for the client and, on top of it, the web gateway, which is a client.
    compile_lock("client", "pyproject.toml", "--extra", "images", "--extra", "web", *like_dev)
    store = ("--extra", "object-store")
    compile_lock("server", "pyproject.toml", "--extra", "server", *like_dev)
    full = ("--extra", "server", "--extra", "telemetry", *store)
    compile_lock("server-full", "pyproject.toml", *full, *like_dev)
    compile_lock("trainer", "pyproject.toml", "--extra", "trainer", *store, *like_dev)
    compile_lock("proto", "--group", "proto")
    compile_lock("triton", "--group", "triton")
    compile_lock("fuzz", "pyproject.toml", "--all-extras", "--group", "fuzz", *like_dev)
    oldest = ("--all-extras", "--group", "build", "--group", "test")
    compile_lock("oldest", "pyproject.toml", *oldest, "--resolution", "lowest-direct")
    compile_lock("oldest-client", "--group", "oldest-client")


if __name__ == "__main__":
    main()

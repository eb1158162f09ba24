"""mlpserve over REST: `mlpserve-web` in front of a `mlpserve-server`, both of one process each."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.compare.peers.mlp import port


def main() -> None:
    """Start the server, and become the gateway."""
    store, server = sys.argv[1], f"127.0.0.1:{os.environ['BENCH_SPARE_PORT']}"
    programs = Path(sys.executable).parent
    quiet = ["--log-level", "warning"]
    serve = [str(programs / "mlpserve-server"), "--store", store, "--listen", server, *quiet]
    subprocess.Popen([*serve, "--workers", "1", "--drain-seconds", "0"])
    listen = ["--target", server, "--listen", f"127.0.0.1:{port()}"]
    os.execv(programs / "mlpserve-web", ["mlpserve-web", *listen, *quiet])


if __name__ == "__main__":
    main()

"""Fuzz every parser of foreign bytes, one after the other: `make fuzz FUZZ_SECONDS=60`.

Seeds come from tests/fuzz/corpus; what grows from them is kept in .fuzz for the next run, as are
the inputs that were found. Ends with 1 when there are any.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.target import CORPUS, load_targets

WORK = Path(".fuzz")
MEMORY_MIB = 1024
INPUT_SECONDS = 10
MAX_BYTES = 4096


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="names, rooms; all unless given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    wanted = options.targets or [""]
    names = [name for name in load_targets() if name.startswith(tuple(wanted))]
    found = [name for name in names if not fuzz(name, options.seconds)]
    print(f"{len(names)} targets, findings in {len(found)}: {', '.join(found) or 'none'}")
    return 1 if found or not names else 0


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target and print what came of it; True when nothing was found."""
    grown = WORK / name
    grown.mkdir(parents=True, exist_ok=True)
    log = grown.with_suffix(grown.suffix + ".log")
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(grown), str(CORPUS / name)]
    command += [f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}"]
    command += [f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={MAX_BYTES}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={WORK}/found-{name}-"]
    started = time.monotonic()
    # libFuzzer ends without cleaning up: what the targets write goes with this folder.
    with tempfile.TemporaryDirectory() as scratch, log.open("wb") as output:
        environment = os.environ | {"TMPDIR": scratch}
        ended = subprocess.run(command, stderr=output, stdout=output, env=environment, check=False)
    text = log.read_text(errors="replace")
    counts = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(r"^#(\d+)", text)
    runs = int(counts[-1]) if counts else 0
    took = time.monotonic() - started
    verdict = "nothing found" if ended.returncode == 0 else f"FOUND: see {log}"
    print(f"{name:28} {runs:10,} runs {took:6.0f} s  {verdict}", flush=True)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())

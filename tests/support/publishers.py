"""Publishers as processes of their own, and what every end of theirs must leave behind."""

import subprocess
import sys
from pathlib import Path

from mlpserve_model import CHAMPION, Store

__all__ = ["PUBLISHER", "assert_whole", "start_publisher"]

# Publishes and promotes until it is killed, or COUNT times; prints what was acknowledged.
PUBLISHER = """
import sys
import numpy as np
from mlpserve_model import *

root, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
network = Network((16, 32, 3))
draft = Draft(
    model="tiny", network=network, signature=Signature((16,), 1.0, ("a", "b", "c")),
    dataset=DatasetInfo("d", "sha256:0", "none"), recipe={}, seed=seed,
    libraries={}, metrics={},
)
promoted, files = Verdict("PROMOTED"), {"report.html": bytes(5000)}
store = Store(root, "tiny")
print("ready", flush=True)
for _ in range(count):
    golden = rng.random((8, 16), dtype=np.float32)
    manifest = store.publish(draft, promoted, initialise(network, rng), golden, files)
    print(manifest.version, flush=True)
    with store.lock():
        previous = store.aliases().get(CHAMPION)
        if manifest.version > (previous or 0):
            store.move_alias(
                CHAMPION, manifest.version, expected=previous, event="promote", reason="newest"
            )
"""


def start_publisher(code: str, root: Path, count: int, seed: int) -> subprocess.Popen[str]:
    """Start a publisher to the store in a folder; `code` is PUBLISHER or begins otherwise."""
    command = [sys.executable, "-c", code, str(root), str(count), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_whole(store: Store, acknowledged: list[int]) -> None:
    """What a reader sees is whole, and nothing that was acknowledged is missing."""
    versions = store.versions()
    lost = sorted(set(acknowledged) - set(versions))
    assert not lost, f"acknowledged and lost: {lost} of {len(acknowledged)}"
    for version in acknowledged[-3:] + versions[-1:]:
        store.verify(version)
    aliases, history = store.aliases(), store.history()
    assert set(aliases.values()) <= set(versions), f"{aliases} of {versions}"
    recorded = {event["version"] for event in history if event["event"] == "publish"}
    assert set(versions) <= recorded, f"without a record: {set(versions) - recorded}"
    promoted = [event["version"] for event in history if event["event"] == "promote"]
    assert aliases.get(CHAMPION) in {None, *promoted}, f"{aliases} without a record"

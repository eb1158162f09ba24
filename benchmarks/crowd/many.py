"""A hundred thousand reports: time to keep, space, time to judge and to list."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpserve_model import CHALLENGER, CHAMPION, Network, Signature, Store
from mlpserve_model.store.evidence.inbox import Inbox, Reviewing
from mlpserve_model.store.evidence.records import FeedbackPlace, encode_report
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from tests.support.corrections import correction
from tests.support.publishing import DRAFT, publish_to

__all__ = ["many_reports"]

# The rest is written by this process at once: to sync each of them would take the longest.
SYNCED = 500


def many_reports(count: int, folder: Path) -> dict[str, Any]:
    """Return what so many reports of images of 28 by 28 take; every second one is audited."""
    store, place = Store(folder / "store", "mnist"), FeedbackPlace(folder / "feedback")
    signature = Signature((28, 28), 255, tuple("0123456789"))
    draft = replace(DRAFT, network=Network((784, 128, 10)), signature=signature)
    publish_to(store, 0, draft=draft)
    rival = publish_to(store, 1, promote=False, draft=draft)
    store.move_alias(CHALLENGER, rival, expected=None, event="promote", reason="a benchmark")
    assert store.aliases()[CHAMPION] == 1
    rng = np.random.default_rng(0)
    seconds = 0.0
    for number in range(count):
        image = np.zeros((28, 28), np.float32)
        image[4:24, 4:24] = rng.integers(0, 256, (20, 20)) / np.float32(255)
        report = correction(
            image, str(number % 10), f"{number % 50:02x}", audit=bool(number % 2),
            answered_at=int(time.time()),
        )  # fmt: skip
        if number < SYNCED:
            started = time.perf_counter()
            place.record(report)
            seconds += time.perf_counter() - started
        else:
            file = folder / "feedback/mnist/reports" / str(report.day) / f"{report.tag}.json"
            file.write_bytes(encode_report(report))
    found: dict[str, Any] = {"reports": count, "milliseconds_to_keep_one": 1000 * seconds / SYNCED}
    files = list((folder / "feedback").rglob("*.json"))
    found["bytes_of_one"] = sum(f.stat().st_size for f in files) / len(files)
    found["bytes_on_disk"] = 512 * sum(f.stat().st_blocks for f in files)
    judge = Judge(store, place, JudgeSettings())
    inbox = Inbox(place, "mnist", Reviewing())
    acts: dict[str, Callable[[], object]] = {
        "judge_unread": Judge(store, place, JudgeSettings()).evaluate,
        "judge": judge.evaluate,
        "judge_again": judge.evaluate,
        "list": inbox.evaluate,
        "list_again": inbox.evaluate,
    }
    _drop_caches(files)
    for name, act in acts.items():
        found[name] = _measured(act)
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["labels"] = judge.evaluate()[0].evidence.labels
    shutil.rmtree(folder / "feedback")
    return found


def _measured(act: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that it takes, and those of the processor, which others may be using."""
    started, cpu = time.perf_counter(), time.process_time()
    act()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def _drop_caches(files: Sequence[Path]) -> None:
    """Write files to the disk, and let the system drop what it keeps of them in memory."""
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)

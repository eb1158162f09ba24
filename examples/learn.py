"""Learning from callers in two minutes: a shift, an alarm, reports, a challenger, a decision.

Run it with `make demo-learn`. Callers send the digits of scikit-learn to two servers. Then a line
of their scanner dies, and the served version takes nines for threes. The callers report what they
see, and one of them lies. Everything it creates is in a temporary folder, which it removes at the
end.
"""

import json
import logging
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# So that it runs from any folder.
sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.crowd import HONEST, LIAR, Crowd, Images, Labels
from examples.quickstart import program, say
from mlpserve_model import Store
from mlpserve_trainer.datasets import DataLocations, load

TRAINED_ON = 1000
P_VALUE = re.compile(r"mlpserve_drift_p_value\{.*?\} (\S+)")
ALARM = 1e-6  # as in deploy/prometheus/rules.yml
LOOKED_AT = 5  # corrections that prove a caller, if all are right


@dataclass(frozen=True)
class Places:
    """Where everything of the demo is."""

    root: Path

    @property
    def feedback(self) -> Path:
        """The place of the reports."""
        return self.root / "feedback"

    @property
    def store(self) -> list[str]:
        """The flags of the store and the model."""
        return ["--store", str(self.root / "models"), "--model", "digits"]


class Stages:
    """What the loop consists of, and how long each part took."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def begin(self, text: str) -> None:
        """Say that a stage begins; the one before it ends."""
        self._begun.append((text, time.monotonic()))
        say(text)

    def table(self) -> str:
        """Return the minutes of each stage, a line for each; the last one ends now."""
        ends = [*(begun for _, begun in self._begun[1:]), time.monotonic()]
        lines = zip(self._begun, ends, strict=True)
        rows = [f"   {(end - begun) / 60:5.2f}  {text}" for (text, begun), end in lines]
        return "\n".join(["   minutes of each stage:", *rows])


def main() -> int:
    """Run the demo; return 0 if the better version answers and the liar has changed nothing."""
    logging.basicConfig(format="   %(message)s", level=logging.WARNING)
    print("Learning from callers: about two minutes.")
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="mlpserve-demo-") as folder:
            failed = run(Places(Path(folder)))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left behind")
        return 130
    print(f"\nall done in {time.monotonic() - started:.0f} s")
    return failed


def run(places: Places) -> int:
    """Run the loop once; return how many of its promises were broken."""
    images, labels = prepare(places)
    stages = Stages()
    stages.begin("1. train and publish the champion")
    trainer(places, "train", *data(places))
    with servers(places) as (addresses, metrics):
        tokens = (places.root / "tokens").read_text().split()
        with Crowd(tokens, addresses, images, labels) as crowd:
            stages.begin("2. callers send what it was trained for, and report on audited answers")
            crowd.call_until(lambda: crowd.answers >= 800, "before")
            stages.begin("3. a line of the scanner dies: the inputs shift")
            crowd.is_shifted = True
            crowd.call_until(lambda: p_value(metrics) < ALARM and crowd.corrected >= 150, "after")
            print(f"   drift alarm: p {p_value(metrics):.1g}; most often {crowd.confusion()}")
            stages.begin(f"4. {LIAR} reports {crowd.lie(250)} fours as nines")
            stages.begin("5. a reviewer looks at five of each caller; the rest by agreement")
            review(places, crowd)
            stages.begin("6. train with these corrections: a challenger, which changes no answer")
            trainer(places, "train", "--as", "challenger", *with_corrections(places))
            stages.begin("7. callers go on; the judge weighs their reports on audited answers")
            before = crowd.accuracy
            digest = decide(places, crowd)
            crowd.call_until(lambda: set(crowd.versions) == {2}, None)
            crowd.call_until(lambda: crowd.answers >= 800, "now")
            after = crowd.accuracy
    stages.begin("8. the decision computed again; and a training that never saw the liar")
    trainer(places, "judge", "--replay", digest, "--feedback", str(places.feedback))
    same = is_same_without(places, crowd.fingerprint(LIAR))
    print(f"   accuracy on live inputs: {before:.1%} -> {after:.1%}")
    print(
        f"   the liar's reports {'changed nothing, bit for bit' if same else 'CHANGED THE WEIGHTS'}"
    )
    print(stages.table())
    return int(not same) + int(after <= before)


def prepare(places: Places) -> tuple[Images, Labels]:
    """Write the training data, keys and tokens; return the digits that callers have."""
    digits = load("digits", DataLocations(None, places.root))
    order = np.random.default_rng(0).permutation(len(digits.labels))
    own, rest = order[:TRAINED_ON], order[TRAINED_ON:]
    names = np.array(digits.class_names)[digits.labels]
    np.savez(places.root / "digits.npz", X=digits.inputs[own], y=names[own], maximum=16)
    for name, count in (("keys", 1), ("tokens", len(HONEST) + 1)):
        path = places.root / name
        path.touch(mode=0o600)
        path.write_text("".join(f"{secrets.token_urlsafe(32)}\n" for _ in range(count)))
    return digits.inputs[rest].astype(np.uint8), digits.labels[rest]


def review(places: Places, crowd: Crowd) -> None:
    """Judge a few corrections of each caller, and accept what those agree on who were right."""
    where = ("--quota", "10000", "--feedback", str(places.feedback))
    listed = trainer(places, "feedback", "list", "--state", "all", "--json", *where, shown=False)
    tags: dict[str, list[str]] = {}
    for correction in json.loads(listed):
        tags.setdefault(correction["source"], []).append(correction["tag"])
    for source, found in tags.items():
        # Who sees the picture of a four sees that it is not a nine.
        verdict = "reject" if source == crowd.fingerprint(LIAR) else "accept"
        print(f"   {source}: five looked at, {verdict}ed")
        trainer(places, "feedback", verdict, *found[:LOOKED_AT], *where, shown=False)
    trainer(places, "feedback", "auto", "--auto-accept", "2", *where)
    trainer(places, "feedback", "list", "--state", "rejected", *where)


def decide(places: Places, crowd: Crowd) -> str:
    """Let callers go on until the judge has decided; return the digest of its evidence."""
    command = ["judge", "--feedback", str(places.feedback)]
    keys = ["--receipt-keys", str(places.root / "keys")]
    for attempt in range(60):
        crowd.call_until(lambda: crowd.answers >= 200, None)
        (decision,) = json.loads(trainer(places, *command, *keys, "--json", shown=False))
        if attempt % 3 == 0 or decision["action"]:
            more = decision["more_labels"]
            verdict = decision["action"] or f"not decided yet, about {more} more are needed"
            won = f"{decision['wins']} won by the challenger, {decision['losses']} lost"
            evidence = f"E {decision['e_value_better']:.3g}"
            print(f"   {decision['labels']} labels, {won}, {evidence}: {verdict}")
        if decision["action"]:
            return str(decision["digest"])
    raise TimeoutError("the judge has not decided")


def is_same_without(places: Places, source: str) -> bool:
    """Return True if a training without any report of this source gives the same weights."""
    for path in places.feedback.glob("digits/reports/*/*.json"):
        if json.loads(path.read_bytes())["source"] == source:
            path.unlink()
    other = ("--store", str(places.root / "other"))
    again = trainer(places, "train", "--json", *with_corrections(places), *other, shown=False)
    version = Store(places.root / "models", "digits").manifest(2)
    return bool(json.loads(again)["digest"] == version.digest)


def data(places: Places) -> list[str]:
    """Return the flags of the training data."""
    return ["--dataset", "npz", "--data-dir", str(places.root / "digits.npz")]


def with_corrections(places: Places) -> list[str]:
    """Return the flags of the training data and the corrections."""
    return [*data(places), "--corrections", str(places.feedback)]


def trainer(places: Places, *words: str, shown: bool = True) -> str:
    """Run a command of the trainer; print it and what it prints, unless it is not to be shown."""
    command = [program("mlpserve-trainer"), words[0], *words[1:]]
    after = 2 if words[0] == "feedback" else 1
    where = [] if "--store" in words else places.store[:2]
    command[1 + after : 1 + after] = [*where, *places.store[2:]]
    if shown:
        text = " ".join(words).replace(str(places.root), "...")
        print(f"   $ mlpserve-trainer {text}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    if shown:
        lines = done.stdout.strip().splitlines()
        print("\n".join(f"   {line}" for line in lines if _says_much(line)))
    return done.stdout


def _says_much(line: str) -> bool:
    """Return True for a line that the demo is about."""
    words = ("version", "holdout", "corrections", "accepted", "revoked", "better than", "identical")
    dull = ("the version:", "its report:", "next (", "trained on", "it is the challenger")
    return any(word in line for word in words) and not any(word in line for word in dull)


@contextmanager
def servers(places: Places) -> Iterator[tuple[list[str], str]]:
    """Run two servers; give their addresses, and that of the first one's metrics."""
    with ExitStack() as stack:
        found = [stack.enter_context(_server(places)) for _ in range(2)]
        yield [address for address, _ in found], found[0][1]


@contextmanager
def _server(places: Places) -> Iterator[tuple[str, str]]:
    command = [program("mlpserve-server"), *places.store, "--listen", "127.0.0.1:0"]
    command += ["--token-file", str(places.root / "tokens"), "--feedback", str(places.feedback)]
    command += ["--receipt-keys", str(places.root / "keys"), "--audit-share", "0.3"]
    command += ["--feedback-rate", "100000", "--drift-window", "300", "--poll-seconds", "0.2"]
    command += ["--metrics-listen", "127.0.0.1:0", "--log-format", "json"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stderr
        addresses: dict[str, str] = {}
        while len(addresses) < 2:
            event = json.loads(server.stderr.readline())
            if event["event"] in ("listening", "showing metrics"):
                addresses[event["event"]] = event["address"]
        # Keep reading: a full pipe would block the server.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield addresses["listening"], addresses["showing metrics"]
    finally:
        server.terminate()
        server.wait(timeout=30)


def p_value(metrics: str) -> float:
    """Return the smallest p-value that a server shows; 1 while it shows none."""
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        found = P_VALUE.findall(answer.read().decode())
    return min(map(float, found), default=1.0)


if __name__ == "__main__":
    sys.exit(main())

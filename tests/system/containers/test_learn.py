"""The profile `learn`: reports, a review, a training on them, and a decision of the judge."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from sklearn.datasets import load_digits

from examples.crowd import HONEST, LIAR, Crowd
from examples.learn import ALARM, LOOKED_AT, P_VALUE, Places, Stages, prepare
from mlpserve_client import Client, Report
from tests.support.containers import NewStack, Stack

SCRAPE = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:9464/metrics").read().decode())
"""
TOKENS = re.compile(r"\b[0-9a-f]{64}\b")

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


def test_the_profile_learns_from_reports_to_a_decision(new_stack: NewStack) -> None:
    stack = new_stack(
        MLPSERVE_LEARN="1",
        MLPSERVE_LEARN_JUDGE="1s",
        MLPSERVE_FEEDBACK_RATE="100000",
        MLPSERVE_AUDIT_SHARE="0.5",
    )
    stack.compose("--profile", "learn", "up", "--wait", "server", "learner", "web")
    page = stack.compose("port", "web", "8080").strip()
    with urlopen(f"http://{page}/api/models", timeout=30) as answer:
        assert json.load(answer)["feedback"] is True  # the page asks whether answers are right

    # A worse version than the champion, which somebody names challenger in spite of the gate.
    haste = ("--hidden", "4", "--epochs", "1", "--margin", "1", "--min-accuracy", "0")
    stack.run("trainer", "train", *haste, "--as", "challenger")
    digits = load_digits()
    images, names = digits.images.astype(np.uint8), [str(label) for label in digits.target]
    with Client(stack.target) as client:
        answers = client.predict_batch(images, receipts=True)
        client.report_batch(
            Report(answer.receipt, name, None, image)
            for answer, name, image in zip(answers, names, images, strict=True)
        )
    listed = json.loads(
        stack.run("trainer", "feedback", "list", "--feedback", "/feedback", "--json")
        .splitlines()[-1]
    )  # fmt: skip
    assert len(listed) == 100  # the quota
    stack.run("trainer", "feedback", "accept", "--source", "none", "--feedback", "/feedback")

    stack.wait_for(lambda: "retire" in stack.compose("logs", "learner"), 60)
    assert "challenger" not in stack.models("list")
    outcome = stack.run(
        "trainer", "train", "--as", "challenger", "--corrections", "/feedback", "--json"
    )
    assert '"verdict": "PROMOTED"' in outcome


def test_the_loop_closes_and_a_liar_is_not_learnt_from(new_stack: NewStack, tmp_path: Path) -> None:
    images, labels = prepare(Places(tmp_path))
    tmp_path.chmod(0o755)  # the trainer in the container is another user
    stack = new_stack(
        2,
        MLPSERVE_DATASET="npz",
        MLPSERVE_DATA_DIR=str(tmp_path),
        MLPSERVE_LEARN="1",
        MLPSERVE_LEARN_EVERY="30s",
        MLPSERVE_LEARN_JUDGE="1s",
        MLPSERVE_AUTO_ACCEPT="2",
        MLPSERVE_FEEDBACK_RATE="100000",
        MLPSERVE_AUDIT_SHARE="0.3",
        MLPSERVE_DRIFT_WINDOW="300",
        MLPSERVE_TOKEN_FILE="/certificates/tokens",
    )
    stages = Stages()
    stages.begin("train the champion, start two servers and the learner")
    tokens = tokens_of(stack, len(HONEST) + 1)
    stack.compose("--profile", "learn", "up", "--wait", "server", "learner")
    host, _, port = stack.target.rpartition(":")
    addresses = [stack.target, f"{host}:{int(port) + 1}"]
    with Crowd(tokens, addresses, images, labels) as crowd:
        stages.begin("callers send what it was trained for, and report")
        crowd.call_until(lambda: crowd.answers >= 800, "before")
        before = crowd.accuracy

        stages.begin("a line of the scanner dies: until the drift alarm")
        crowd.is_shifted = True
        crowd.call_until(lambda: p_value(stack) < ALARM, None, 120)
        stages.begin("callers go on, and report")
        crowd.call_until(lambda: crowd.answers >= 800, "after")
        shifted = crowd.accuracy
        crowd.lie(250)

        stages.begin("a reviewer looks at five corrections of each caller")
        review(stack, crowd)
        stages.begin(
            "until the learner names a challenger, trained on what proven callers agree on"
        )
        crowd.call_until(lambda: bool(named(stack)), None, 180)
        stages.begin("until the judge promotes it")
        crowd.call_until(lambda: "promote" in decided(stack), None, 180)
        stages.begin("until every server answers with it")
        follow(crowd)
        crowd.call_until(lambda: crowd.answers >= 800, "now")
        after = crowd.accuracy
    print(stages.table())
    print(f"   live accuracy: {before:.1%}, shifted {shifted:.1%}, afterwards {after:.1%}")
    # Of 800 answers, the deviation of a difference is 0.015.
    assert shifted < before - 0.05
    assert after > shifted + 0.02
    sources = " ".join(str(event["sources"]) for event in logged(stack, "corrections"))
    assert all(crowd.fingerprint(name) in sources for name in HONEST)
    assert crowd.fingerprint(LIAR) not in sources


def tokens_of(stack: Stack, count: int) -> list[str]:
    """Make tokens as an operator does, and return them."""
    stack.run("certificates")
    for _ in range(count - 1):
        stack.run("certificates", "new-token")
    entry = ("--entrypoint", "cat", "certificates", "/certificates/tokens")
    return TOKENS.findall(stack.compose("run", "--rm", "--no-TTY", *entry))


def review(stack: Stack, crowd: Crowd) -> None:
    """Accept corrections of the honest callers, and reject those of the liar."""
    where = ("--feedback", "/feedback", "--quota", "10000")
    listing = ("trainer", "feedback", "list", *where, "--state", "all", "--json")
    tags: dict[str, list[str]] = {}
    for correction in json.loads(stack.run(*listing).splitlines()[-1]):
        tags.setdefault(correction["source"], []).append(correction["tag"])
    for name in (*HONEST, LIAR):
        chosen = tags[crowd.fingerprint(name)][:LOOKED_AT]
        assert len(chosen) == LOOKED_AT
        verdict = "reject" if name == LIAR else "accept"
        stack.run("trainer", "feedback", verdict, *chosen, *where)


def p_value(stack: Stack) -> float:
    """Return the smallest p-value that the first server shows; 1 while it shows none."""
    page = stack.compose("exec", "--no-TTY", "server", "python", "-c", SCRAPE)
    return min(map(float, P_VALUE.findall(page)), default=1.0)


def logged(stack: Stack, event: str) -> list[dict[str, Any]]:
    """Return what the learner logged under this name."""
    lines = stack.docker("logs", stack.container("learner")).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [each for each in events if each["event"] == event]


def named(stack: Stack) -> list[int]:
    """Return the versions that the learner's trainings named challenger."""
    runs = logged(stack, "run ended")
    return [run["version"] for run in runs if run["status"] == "promoted"]


def decided(stack: Stack) -> list[str]:
    """Return what the judge has done."""
    return [event["action"] for event in logged(stack, "decided")]


def follow(crowd: Crowd) -> None:
    """Call until no answer of a whole round comes from the first version."""
    for _ in range(20):
        crowd.call_until(lambda: crowd.answers >= 400, None)
        if 1 not in crowd.versions:
            return
    raise AssertionError("a server stays with version 1")

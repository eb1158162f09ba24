"""The profile `learn`: reports, a review, a training on them, and a decision of the judge."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlpserve_client import Client, Report
from tests.support.containers import NewStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


def test_the_profile_learns_from_reports_to_a_decision(new_stack: NewStack) -> None:
    stack = new_stack(
        MLPSERVE_LEARN="1",
        MLPSERVE_LEARN_JUDGE="1s",
        MLPSERVE_FEEDBACK_RATE="100000",
        MLPSERVE_AUDIT_SHARE="0.5",
    )
    stack.compose("--profile", "learn", "up", "--wait", "server", "learner")

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

"""Several models in Compose, as docs/models.md says: they come, and break, without each other."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlpserve_client import Client, ModelNotFoundError, NotReadyError
from tests.support.containers import ROOT, NewStack, Stack

IMAGE = load_digits().images[0].astype(np.uint8)
FIRST, SECOND, THIRD = "mnist", "digits", "letters"
TRAINING_SECONDS = 120

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture
def stack(new_stack: NewStack) -> Stack:
    """The stack with the files that the page names."""
    page = (ROOT / "docs/models.md").read_text()
    files, profile = re.findall(
        r"^export COMPOSE_FILE=(\S+)\ndocker compose --profile (\w+) up --wait$", page, re.M
    )[0]
    stack = new_stack(COMPOSE_FILE=files)
    stack.up("--profile", profile)
    return stack


def answers(client: Client, model: str) -> bool:
    """Return True if a call for a model is answered by it."""
    try:
        return client.predict(IMAGE, model=model).model.name == model
    except (ModelNotFoundError, NotReadyError):
        return False


def test_models_come_and_break_without_each_other(stack: Stack) -> None:
    with Client(stack.target) as client:
        assert client.predict(IMAGE).model.name == FIRST, "ready before the first model answers"
        stack.wait_for(lambda: answers(client, SECOND), TRAINING_SECONDS)

        before = stack.inspect("server")["State"]["StartedAt"]
        stack.run("trainer", "train", "--model", THIRD)
        stack.wait_for(lambda: answers(client, THIRD), 20)
        assert stack.inspect("server")["State"]["StartedAt"] == before

        damage = ("-c", f"echo damaged >/models/{THIRD}/1/model.npz")
        entry = ("--rm", "--no-TTY", "--no-deps", "--entrypoint", "sh", "trainer")
        stack.compose("run", *entry, *damage)
        stack.compose("restart", "server")  # or the version in memory would still answer
        stack.wait_for(lambda: answers(client, FIRST) and answers(client, SECOND), 60)
        with pytest.raises(NotReadyError, match=f"champion of {THIRD} cannot answer"):
            client.predict(IMAGE, model=THIRD)

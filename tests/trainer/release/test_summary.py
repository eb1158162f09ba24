from dataclasses import replace
from pathlib import Path

import pytest

from mlpserve_trainer.release import summary
from mlpserve_trainer.release.outcome import Outcome

METRICS = {"accuracy": 0.98, "validation_accuracy": 0.97, "training_accuracy": 0.99}
PROMOTED = Outcome(2, "PROMOTED", (), METRICS, "sha256:0", 1.5, "", "models/mnist/2", "digits")


def test_commands_of_a_server_are_named_where_one_is_installed() -> None:
    text = summary.summary(PROMOTED, Path("models"), "letters")
    assert "mlpserve serve --model letters\n" in text
    assert "mlpserve predict --demo --model letters" in text


def test_the_store_is_named_to_those_who_look_into_it() -> None:
    text = summary.summary(PROMOTED, Path("my models"), "mnist")
    assert text.endswith("mlpserve serve --store 'my models'\n  mlpserve predict --demo")


def test_without_a_server_nobody_is_told_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "SERVER_PACKAGE", "no_such_package")
    text = summary.summary(PROMOTED, Path("models"), "mnist")
    assert "mlpserve serve" not in text
    assert text.endswith("servers of this model load the version by themselves")


def test_a_challenger_is_sent_to_the_judge() -> None:
    text = summary.summary(replace(PROMOTED, is_challenger=True), Path("models"), "letters")
    assert text.endswith("mlpserve judge --feedback PLACE --model letters")

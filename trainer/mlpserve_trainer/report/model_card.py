"""The model card: the facts about a version, for people."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import Draft, Verdict
from mlpserve_trainer.report.analysis import Findings

__all__ = ["model_card"]

MOST_CONFUSIONS = 10


def model_card(
    draft: Draft,
    verdict: Verdict,
    scores: str,
    facts: Findings,
    champion: int | None,
    champion_right: npt.NDArray[np.bool_] | None,
) -> bytes:
    """Return model_card.md.

    * `draft`: what the version is.
    * `verdict`: what the gate says of it.
    * `scores`: precision, recall and F1 of each class on the holdout, as a table.
    * `facts`: what was measured.
    * `champion`: the version it was compared with, if any.
    * `champion_right`: (n,) whether that one predicted each row of the holdout right, if asked.
    """
    signature = draft.signature
    sizes = "-".join(map(str, draft.network.layer_sizes))
    shape = "×".join(map(str, signature.input_shape))
    taken = _confusions(signature.class_names, facts.confusion)
    sections = [
        f"# {draft.model}: {sizes} on {draft.dataset.name}\n",
        f"A multi-layer perceptron, {draft.network.hidden_activation} inside and "
        f"{draft.network.output_activation} at the output, {draft.network.parameters:,} "
        "parameters. It answers with one probability for each class.\n",
        f"* Input: {shape}, uint8 from 0 to {signature.input_maximum:g} or float32 from 0 to 1",
        f"* Classes: {', '.join(signature.class_names)}",
        f"* Data: {draft.dataset.name}, split: {draft.dataset.split}",
        f"* Digest of the data: {draft.dataset.digest}",
        f"* Seed: {draft.seed}\n",
        f"## Verdict: {verdict.verdict}\n",
        *(f"* {reason}" for reason in verdict.reasons),
        f"\n## Measured\n\n{_table({k: f'{v:.4f}' for k, v in draft.metrics.items()})}",
        f"\n## Each class on the holdout\n\n```\n{scores}\n```",
        f"\n## Taken for each other most often\n\n{taken}",
        f"\n## Calibration\n\n{facts.calibration_in_words()}",
        f"\n## Beside the champion\n\n{_beside(facts, champion, champion_right)}",
        f"\n## Recipe\n\n{_table(draft.recipe)}",
        f"\n## Made with\n\n{_table(draft.libraries)}",
    ]
    return ("\n".join(sections) + "\n").encode()


def _confusions(names: tuple[str, ...], confusion: npt.NDArray[np.int64]) -> str:
    wrong = confusion * (1 - np.eye(len(names), dtype=np.int64))
    places = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in places if wrong.flat[place]]
    lines = (f"* {wrong[a, b]} of {names[a]} for {names[b]}" for a, b in pairs)
    return "\n".join(lines) or "None: every row of the holdout was predicted right."


def _beside(
    facts: Findings, champion: int | None, champion_right: npt.NDArray[np.bool_] | None
) -> str:
    if champion is None or champion_right is None:
        return "There was no champion to compare with."
    return _table(facts.beside(champion, champion_right))


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"| {name} | {_cell(value)} |" for name, value in values.items())
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

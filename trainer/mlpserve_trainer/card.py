"""The model card: the facts about a version, for people."""

from collections.abc import Mapping
from typing import Any

from mlpserve_model import Manifest

__all__ = ["model_card"]


def model_card(draft: Manifest, scores: str) -> bytes:
    """Return model_card.md.

    * `draft`: the manifest as it goes to the store; number and time are set there.
    * `scores`: precision, recall and F1 of each class on the holdout, as a table.
    """
    sizes = "-".join(map(str, draft.network.layer_sizes))
    shape = "×".join(map(str, draft.input_shape))
    sections = [
        f"# {draft.model}: {sizes} on {draft.dataset.name}\n",
        f"A multi-layer perceptron, {draft.network.hidden_activation} inside and "
        f"{draft.network.output_activation} at the output, {draft.network.parameters:,} "
        "parameters. It answers with one probability for each class.\n",
        f"* Input: {shape}, uint8 from 0 to {draft.input_maximum:g} or float32 from 0 to 1",
        f"* Classes: {', '.join(draft.class_names)}",
        f"* Data: {draft.dataset.name}, split: {draft.dataset.split}",
        f"* Digest of the data: {draft.dataset.digest}",
        f"* Seed: {draft.seed}\n",
        f"## Verdict: {draft.gate.verdict}\n",
        *(f"* {reason}" for reason in draft.gate.reasons),
        f"\n## Measured\n\n{_table({k: f'{v:.4f}' for k, v in draft.metrics.items()})}",
        f"\n## Each class on the holdout\n\n```\n{scores}\n```",
        f"\n## Recipe\n\n{_table(draft.recipe)}",
        f"\n## Made with\n\n{_table(draft.libraries)}",
    ]
    return ("\n".join(sections) + "\n").encode()


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"| {name} | {_cell(value)} |" for name, value in values.items())
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

"""The model card: a version's description in Markdown."""

import html
import re
from collections.abc import Mapping
from typing import Any

from mlpserve_model import Draft, Network, Signature, Verdict
from mlpserve_model.process.tables import plain
from mlpserve_trainer.report.analysis import Analysis, Comparison
from mlpserve_trainer.report.provenance import corrections_in_words

__all__ = ["activations_in_words", "model_card"]

MAX_CONFUSIONS = 10
MAX_NAMES = 100
# Also what would become a link by itself, and underscores but for those inside of words.
_MARKUP = re.compile(
    r"([\\`*\[\]|~@]|:(?=//)|(?<=www)\.|^[#+-]|(?<![^\W_])_|_(?![^\W_]))", re.IGNORECASE
)


def model_card(
    draft: Draft, verdict: Verdict, scores: str, analysis: Analysis, comparison: Comparison | None
) -> bytes:
    """Return model_card.md, in which names and texts of unknown origin are escaped.

    Args:
        draft: Description of the version.
        verdict: The gate's verdict.
        scores: Table of precision, recall and F1 of each class on the holdout.
        analysis: Measurements on the holdout.
        comparison: The champion's predictions on it, if there was one to compare with.
    """
    signature, network = draft.signature, draft.network
    sizes = "-".join(map(str, network.layer_sizes))
    shape = "×".join(map(str, signature.input_shape))
    names = signature.class_names
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    # Indented, because a fence could be closed by a class name.
    table = "\n".join(f"    {line}" for line in scores.splitlines())
    compared = "There was no champion to compare with."
    if comparison:
        compared = _table(analysis.compare_with(comparison))
    sections = [
        f"# {_escape(draft.model)}: {sizes} on {_escape(draft.dataset.name)}\n",
        f"A multi-layer perceptron, {activations_in_words(network)}, {network.parameters:,} "
        "parameters. It answers with one probability for each class.\n",
        f"* Input: {shape}, {_values_taken(signature)}",
        f"* Classes: {', '.join(map(_escape, names[:MAX_NAMES]))}{more}",
        f"* Data: {_escape(draft.dataset.name)}, split: {_escape(draft.dataset.split)}",
        f"* Digest of the data: {draft.dataset.digest}",
        f"* Corrections of callers: {corrections_in_words(draft)}",
        f"* Seed: {draft.seed}\n",
        f"## Verdict: {verdict.verdict}\n",
        *(f"* {_escape(reason)}" for reason in verdict.reasons),
        f"\n## Metrics\n\n{_table({k: f'{v:.4f}' for k, v in draft.metrics.items()})}",
        f"\n## Each class on the holdout\n\n{table}",
        f"\n## Most frequent confusions\n\n{_confusions(names, analysis)}",
        f"\n## Calibration\n\n{analysis.calibration_in_words()}",
        f"\n## Comparison with the champion\n\n{compared}",
        f"\n## Recipe\n\n{_table(draft.recipe)}",
        f"\n## Versions of Python and libraries\n\n{_table(draft.libraries)}",
    ]
    return ("\n".join(sections) + "\n").encode()


def activations_in_words(network: Network) -> str:
    """Return the activations, those of the hidden layers once if they are all the same."""
    *hidden, output = network.activations
    inside = dict.fromkeys(hidden) if len(set(hidden)) == 1 else hidden
    return f"{', '.join(inside)} inside, {output} at the output" if hidden else f"only {output}"


def _values_taken(signature: Signature) -> str:
    if signature.input_kind == "real":
        return "any finite float32, in the units of the training data"
    return f"uint8 from 0 to {signature.input_maximum:g} or float32 from 0 to 1"


def _confusions(names: tuple[str, ...], analysis: Analysis) -> str:
    lines = (
        f"* {found.rows} of {_escape(names[found.label])} for {_escape(names[found.predicted])}"
        for found in analysis.confusions(MAX_CONFUSIONS)
    )
    return "\n".join(lines) or "None: every row of the holdout was predicted right."


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"| {_escape(str(name))} | {_cell(value)} |" for name, value in values.items())
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _cell(value: Any) -> str:
    return _escape(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _escape(text: str) -> str:
    """Return a text that Markdown shows as it is: no HTML, no links, no line of its own."""
    return _MARKUP.sub(r"\\\1", html.escape(plain(text), quote=False))

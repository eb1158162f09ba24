"""report.html: everything about a version on one page that needs nothing else."""

import html
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import Draft, Verdict
from mlpserve_trainer.report import figures
from mlpserve_trainer.report.analysis import Findings, Mistake

__all__ = ["Page"]

MOST_UNITS = 64
MOST_DIFFERENT = 12


class Page:
    """A report in two steps: what takes long is drawn at once, the verdict is put in later.

    * `draft`: what the version is.
    * `facts`: what was measured.
    """

    def __init__(self, draft: Draft, facts: Findings) -> None:
        self._draft, self.facts = draft, facts
        confusion, names = facts.confusion, draft.signature.class_names
        self._figures = {
            "curves": figures.learning_curves(facts.state),
            "confusion": figures.confusion_matrix(confusion, names),
            "calibration": figures.calibration_curve(facts.raw, facts.calibrated),
            "mistakes": self._mistakes(),
            "units": self._units(),
        }

    def html(
        self, verdict: Verdict, champion: int | None, champion_right: npt.NDArray[np.bool_] | None
    ) -> bytes:
        """Return the page.

        * `verdict`: what the gate says of it.
        * `champion`: the version it was compared with, if any.
        * `champion_right`: (n,) whether that one predicted each row of the holdout right, if asked.
        """
        draft = self._draft
        sizes = "-".join(map(str, draft.network.layer_sizes))
        values = self._figures | {
            "title": html.escape(f"{draft.model}: {sizes} on {draft.dataset.name}"),
            "verdict": verdict.verdict,
            "reasons": _list(verdict.reasons),
            "tiles": _tiles(draft.metrics),
            "classes": self._classes(),
            "comparison": self._comparison(champion, champion_right),
            "errors": self.facts.calibration_in_words(),
            "facts": _table(_facts(draft)),
            "recipe": _table(draft.recipe),
        }
        template = resources.files("mlpserve_trainer").joinpath("report.html").read_text("utf-8")
        return Template(template).substitute(values).encode()

    def _classes(self) -> str:
        scores = self.facts.scores
        columns = (scores.precision, scores.recall, scores.f1, scores.rows)
        rows = zip(self._draft.signature.class_names, *columns, strict=True)
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{precision:.4f}</td><td>{recall:.4f}</td>"
            f"<td>{f1:.4f}</td><td>{count}</td></tr>"
            for name, precision, recall, f1, count in rows
        )
        head = "<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>rows</th></tr>"
        return f"<table class=numbers>{head}{cells}</table>"

    def _mistakes(self) -> str:
        if not self.facts.mistakes:
            return "<p>None: every row of the holdout was predicted right.</p>"
        return _gallery(self._figure_of(m.row, self._caption(m)) for m in self.facts.mistakes)

    def _caption(self, mistake: Mistake) -> str:
        names = self._draft.signature.class_names
        true, predicted = html.escape(names[mistake.label]), html.escape(names[mistake.predicted])
        return f"<b>{true}</b> taken for <b>{predicted}</b>, {mistake.confidence:.2f}"

    def _figure_of(self, row: int, caption: str) -> str:
        caption = f"<figcaption>{caption}</figcaption>"
        if not self._is_picture:
            return f"<figure>row {row}{caption}</figure>"
        inputs = self.facts.holdout.scaled(slice(row, row + 1))
        source = figures.picture(inputs.reshape(self._draft.signature.input_shape))
        return f'<figure><img src="{source}" alt="row {row}">{caption}</figure>'

    def _units(self) -> str:
        if not self._is_picture:
            return "<p>The inputs are no pictures, and neither are the weights.</p>"
        w = self.facts.weights[0].w
        # The strongest units first: weak ones show noise.
        strongest = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")[:MOST_UNITS]
        shown = (
            figures.signed_picture(w[:, u].reshape(self._draft.signature.input_shape))
            for u in strongest
        )
        return _gallery(f'<img src="{source}" alt="">' for source in shown)

    def _comparison(
        self, champion: int | None, champion_right: npt.NDArray[np.bool_] | None
    ) -> str:
        if champion is None or champion_right is None:
            return "<p>There was no champion to compare with.</p>"
        right = self.facts.right
        return (
            _table(self.facts.beside(champion, champion_right))
            + self._different(right & ~champion_right, "right here only")
            + (self._different(~right & champion_right, f"right with champion {champion} only"))
        )

    def _different(self, rows: npt.NDArray[np.bool_], title: str) -> str:
        chosen = np.flatnonzero(rows)[:MOST_DIFFERENT]
        if not len(chosen):
            return ""
        names, labels = self._draft.signature.class_names, self.facts.holdout.labels
        shown = (self._figure_of(int(row), html.escape(names[labels[row]])) for row in chosen)
        return f"<h3>{title}</h3>{_gallery(shown)}"

    @property
    def _is_picture(self) -> bool:
        return (
            len(self._draft.signature.input_shape) == 2
            and min(self._draft.signature.input_shape) > 1
        )


def _tiles(metrics: Mapping[str, float]) -> str:
    return "".join(
        f"<div><b>{value:.4g}</b><span>{html.escape(name.replace('_', ' '))}</span></div>"
        for name, value in metrics.items()
        if math.isfinite(value)
    )


def _facts(draft: Draft) -> dict[str, Any]:
    network, signature = draft.network, draft.signature
    return {
        "network": f"{network.hidden_activation} inside, {network.output_activation} at the output",
        "parameters": f"{network.parameters:,}",
        "data": f"{draft.dataset.name}, split: {draft.dataset.split}",
        "data digest": draft.dataset.digest,
        "input": f"{'×'.join(map(str, signature.input_shape))}, 0 to {signature.input_maximum:g}",
        "seed": draft.seed,
        **draft.libraries,
    }


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _gallery(items: Iterable[str]) -> str:
    return f"<div class=gallery>{''.join(items)}</div>"

"""report.html: everything about a version on one page without scripts or links."""

import html
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import resources
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model import Draft, Signature, Verdict
from mlpserve_model.process.tables import plain
from mlpserve_trainer.report import figures
from mlpserve_trainer.report.analysis import Analysis, Comparison, Mistake
from mlpserve_trainer.report.drift import Predecessor, drift_rows
from mlpserve_trainer.report.model_card import activations_in_words
from mlpserve_trainer.report.provenance import corrections_in_words

__all__ = ["HtmlReport"]

MAX_UNITS = 64
MAX_DIFFERENT = 12
# Beyond these, the classes with the most mistakes stand for all: a figure of 3,000 classes takes
# 20 seconds, and nobody reads it.
MAX_MATRIX_CLASSES = 40
MAX_TABLE_CLASSES = 200


class HtmlReport:
    """A report in two steps: the figures are drawn at once, the verdict is added later.

    Args:
        draft: Description of the version.
        analysis: Measurements on the holdout.
        source: Where the data came from, such as a file's path.
    """

    def __init__(self, draft: Draft, analysis: Analysis, source: str) -> None:
        self._draft, self.analysis, self._source = draft, analysis, source
        self._names = [plain(name) for name in draft.signature.class_names]
        self._figures = {
            "curves": figures.learning_curves(analysis.state),
            "confusion": self._confusion(),
            "calibration": figures.calibration_curve(analysis.raw, analysis.calibrated),
            "mistakes": self._mistakes(),
            "units": self._units(),
        }

    def render(
        self,
        version: int,
        verdict: Verdict,
        comparison: Comparison | None,
        predecessor: Predecessor | None = None,
    ) -> bytes:
        """Return the page.

        Args:
            version: Number of the version.
            verdict: The gate's verdict.
            comparison: The champion's predictions, if there was a champion to compare with.
            predecessor: How the holdout differs from the champion's, if that left a reference.
        """
        draft = self._draft
        sizes = "-".join(map(str, draft.network.layer_sizes))
        values = self._figures | {
            "title": html.escape(
                plain(f"{draft.model} {version}: {sizes} on {draft.dataset.name}")
            ),
            "origin": _table({"version": version, **self._origin()}),
            "verdict": verdict.verdict,
            "reasons": _list(verdict.reasons),
            "tiles": _tiles(draft.metrics),
            "classes": self._classes(),
            "comparison": self._comparison(comparison),
            "drift": _drift(predecessor),
            "errors": self.analysis.calibration_in_words(),
            "bins": self._bins(),
            "facts": _table(_facts(draft)),
            "recipe": _table(draft.recipe),
        }
        room = resources.files("mlpserve_trainer.report")
        template = room.joinpath("report.html").read_text("utf-8")
        return Template(template).substitute(values).encode()

    def _origin(self) -> dict[str, str]:
        now = datetime.now(UTC)
        return {
            "trained": f"{now:%Y-%m-%d %H:%M} UTC",
            "data": self._source,
            "data digest": self._draft.dataset.digest,
        }

    def _confusion(self) -> str:
        count, most = len(self._names), MAX_MATRIX_CLASSES
        if count <= most:
            classes, note = np.arange(count), ""
        else:
            classes = np.sort(self._worst_classes()[:most])
            note = f"<p>The {most} of {count:,} classes with the lowest F1.</p>"
        names = [self._names[index] for index in classes]
        matrix = self.analysis.confusion_matrix(classes)
        return figures.confusion_matrix(matrix, names) + note

    def _worst_classes(self) -> npt.NDArray[np.int64]:
        """Return the class indices, the lowest F1 first."""
        return np.argsort(self.analysis.scores.f1, kind="stable")

    def _classes(self) -> str:
        scores, count = self.analysis.scores, len(self._names)
        shown, note = range(count), ""
        if count > MAX_TABLE_CLASSES:
            shown = sorted(self._worst_classes()[:MAX_TABLE_CLASSES])  # type: ignore[assignment]
            note = f"<p>The {MAX_TABLE_CLASSES} of {count:,} classes with the lowest F1.</p>"
        rows = (
            (
                self._names[i],
                *(f"{v[i]:.4f}" for v in (scores.precision, scores.recall, scores.f1)),
                scores.rows[i],
            )
            for i in shown
        )
        return _numbers(("class", "precision", "recall", "F1", "rows"), rows) + note

    def _bins(self) -> str:
        served = self.analysis.served
        edges = np.linspace(0, 1, len(served.rows) + 1)
        rows = (
            (f"{low:.2f} to {high:.2f}", f"{confidence:.4f}", f"{accuracy:.4f}", count)
            for low, high, confidence, accuracy, count in zip(
                edges[:-1], edges[1:], served.confidence, served.accuracy, served.rows, strict=True
            )
            if count
        )
        return _numbers(("confidence", "mean", "accuracy", "rows"), rows)

    def _mistakes(self) -> str:
        if not self.analysis.mistakes:
            return "<p>None: every row of the holdout was predicted right.</p>"
        return _gallery(self._row(m.row, self._caption(m)) for m in self.analysis.mistakes)

    def _caption(self, mistake: Mistake) -> str:
        names = self._names
        true, predicted = html.escape(names[mistake.label]), html.escape(names[mistake.predicted])
        return f"<b>{true}</b> taken for <b>{predicted}</b>, {mistake.confidence:.4f}"

    def _row(self, row: int, caption: str) -> str:
        """Return a row of the holdout: as an image if it is one, else by its number."""
        caption = f"<figcaption>{caption}</figcaption>"
        shape, source = self._draft.signature.input_shape, None
        if _is_image(shape):
            inputs = self.analysis.holdout.scaled(slice(row, row + 1))
            source = figures.picture(inputs.reshape(shape))
        image = f'<img src="{source}" alt="row {row}">' if source else f"row {row}"
        return f"<figure>{image}{caption}</figure>"

    def _units(self) -> str:
        shape = self._draft.signature.input_shape
        if not _is_image(shape):
            return "<p>The inputs are not images, so the weights are not shown as images.</p>"
        w = self.analysis.weights[0].w
        # The units with the largest weights first: the others show noise.
        strongest = np.argsort(-np.linalg.norm(w, axis=0), kind="stable")[:MAX_UNITS]
        sources = (figures.signed_picture(w[:, unit].reshape(shape)) for unit in strongest)
        return _gallery(f'<img src="{source}" alt="">' for source in sources if source)

    def _comparison(self, comparison: Comparison | None) -> str:
        if comparison is None:
            return "<p>There was no champion to compare with.</p>"
        ours, theirs = self.analysis.correct, comparison.correct
        return (
            _table(self.analysis.compare_with(comparison))
            + self._different(ours & ~theirs, "right here only")
            + self._different(~ours & theirs, f"right with champion {comparison.champion} only")
        )

    def _different(self, rows: npt.NDArray[np.bool_], title: str) -> str:
        chosen = np.flatnonzero(rows)[:MAX_DIFFERENT]
        if not len(chosen):
            return ""
        names, labels = self._names, self.analysis.holdout.labels
        shown = (self._row(int(row), html.escape(names[labels[row]])) for row in chosen)
        return f"<h3>{title}</h3>{_gallery(shown)}"


def _drift(predecessor: Predecessor | None) -> str:
    if predecessor is None:
        return "<p>There was no champion with a reference.json to compare with.</p>"
    header = ("signal", "G", "degrees", "p", "PSI", "PSI without drift (95 %)")
    return (
        f"<p>This version's holdout, {predecessor.rows_now:,} rows, beside the "
        f"{predecessor.rows:,} rows of champion {predecessor.champion}'s. The mean input depends "
        "on the data alone; the other signals also on the two networks.</p>"
        + _numbers(header, drift_rows(predecessor))
    )


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and min(shape) > 1


def _tiles(metrics: Mapping[str, float]) -> str:
    return "".join(
        f"<div><b>{value:.4f}</b><span>{html.escape(name.replace('_', ' '))}</span></div>"
        for name, value in metrics.items()
        if math.isfinite(value)
    )


def _facts(draft: Draft) -> dict[str, Any]:
    network, signature = draft.network, draft.signature
    return {
        "network": activations_in_words(network),
        "parameters": f"{network.parameters:,}",
        "data": f"{draft.dataset.name}, split: {draft.dataset.split}",
        "input": f"{'×'.join(map(str, signature.input_shape))}, {_range(signature)}",
        **_values(draft),
        "corrections": corrections_in_words(draft),
        "seed": draft.seed,
        **draft.libraries,
    }


def _range(signature: Signature) -> str:
    is_real = signature.input_kind == "real"
    return "real numbers" if is_real else f"0 to {signature.input_maximum:g}"


def _values(draft: Draft) -> dict[str, str]:
    values = draft.input_values
    if values is None:
        return {}
    return {"training values": f"{values.kind}, {values.low:g} to {values.high:g}"}


def _numbers(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table whose columns but the first are numbers."""
    head = "".join(f"<th>{name}</th>" for name in header)
    body = "".join(
        f"<tr><th>{html.escape(str(first))}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table class=numbers><tr>{head}</tr>{body}</table>"


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    return plain(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(plain(item))}</li>" for item in items) + "</ul>"


def _gallery(items: Iterable[str]) -> str:
    return f"<div class=gallery>{''.join(items)}</div>"

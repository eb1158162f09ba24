"""Networks that were not trained here: calibrated, judged and published by labelled data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlpserve_model import CHAMPION, Draft, InputValues, Manifest, Signature, Store, Weights
from mlpserve_model.interchange.imported import output_of_logits
from mlpserve_model.process.tables import plain
from mlpserve_trainer.datasets.csv_file import read_csv
from mlpserve_trainer.datasets.dataset import known_labels, rows_digest
from mlpserve_trainer.datasets.npz import find_npz, read_npz
from mlpserve_trainer.datasets.scaling import listed_means
from mlpserve_trainer.datasets.split import VALIDATION_SEED, Examples, Split, stratified
from mlpserve_trainer.errors import DataError
from mlpserve_trainer.evaluation.calibration import (
    apply_temperature,
    calibrated_network,
    expected_calibration_error,
    fit_temperature,
)
from mlpserve_trainer.evaluation.scores import evaluate, logits_of, report
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.release.gate import Rules
from mlpserve_trainer.release.publish import Challenger, publish
from mlpserve_trainer.report.analysis import analyse
from mlpserve_trainer.report.html import HtmlReport

__all__ = ["Published", "publish_foreign", "read_holdout"]

CALIBRATION_FRACTION = 0.2  # of the labelled rows; the others judge


@dataclass(frozen=True)
class Published:
    """A version, and the table of its scores for each class."""

    manifest: Manifest
    report: str


def read_holdout(path: Path, signature: Signature) -> Examples:
    """Return the labelled rows of a .npz or .csv file as a network of this signature takes them.

    Raises:
        DataError: The file cannot be read, or its rows do not fit.

    """
    is_csv = path.suffix.lower() == ".csv"
    rows = read_csv(path) if is_csv else read_npz(path := find_npz(path))
    shown, size = plain(str(path)), int(np.prod(signature.input_shape))
    if not len(rows.labels) or rows.inputs[0].size != size or len(rows.inputs) != len(rows.labels):
        raise DataError(
            f"{shown}: inputs of shape {rows.inputs.shape} for {len(rows.labels)} labels, "
            f"expected rows of shape {signature.input_shape}"
        )
    inputs = rows.inputs.reshape(-1, *signature.input_shape)
    if signature.input_kind == "real":
        inputs = inputs.astype(np.float32)
    elif inputs.dtype == np.uint8 and inputs.max() > signature.input_maximum:
        raise DataError(
            f"{shown}: pixels up to {inputs.max()}, expected at most {signature.input_maximum:g}"
        )
    elif inputs.dtype == np.uint8 and rows.says_maximum and rows.maximum != signature.input_maximum:
        raise DataError(
            f"{shown}: its maximum is {rows.maximum:g}, and the network takes pixels of 0 to "
            f"{signature.input_maximum:g}: see --input-maximum"
        )
    if inputs.dtype == np.float32:
        low, high = float(inputs.min()), float(inputs.max())
        whole = (0, 1) if signature.input_kind == "pixels" else (-np.inf, np.inf)
        if not (whole[0] <= low and high <= whole[1] and np.isfinite([low, high]).all()):
            raise DataError(
                f"{shown}: values from {low:g} to {high:g}, expected "
                + ("0 to 1" if signature.input_kind == "pixels" else "finite numbers")
            )
    labels = known_labels(shown, rows.labels, signature.class_names)
    return Examples(inputs, labels, signature.input_maximum)


def publish_foreign(
    store: Store,
    draft: Draft,
    weights: Weights,
    labelled: Examples,
    rules: Rules,
    source: str,
    alias: str = CHAMPION,
    calibrates: bool = True,
) -> Published:
    """Calibrate a network that was trained elsewhere, judge it, and publish it.

    A fifth of the labelled rows, of each class, fits the temperature; the others are the holdout.

    Args:
        store: Where it is published.
        draft: Its description, without metrics.
        weights: Its weights.
        labelled: Examples that it was not trained on.
        rules: How strict the gate is.
        source: Where the examples came from, for people.
        alias: The alias that moves to it, if it passes the gate.
        calibrates: Whether the temperature is folded into the weights.

    Raises:
        DataError: There are too few examples.
        StoreError: The store refuses.

    """
    network, output = draft.network, draft.network.output_activation
    if output == "identity":
        raise DataError(
            "the network answers with logits, and the gate judges probabilities: "
            f"give --output-activation {output_of_logits(network)}, or publish it without a holdout"
        )
    judged, fitted = stratified(labelled.labels, CALIBRATION_FRACTION, VALIDATION_SEED)
    if not (len(judged) and len(fitted)):
        raise DataError(f"{len(labelled)} labelled rows are too few to calibrate and to judge")
    holdout, validation = labelled.select(judged), labelled.select(fitted)
    temperature = None
    if calibrates:
        logits = logits_of(network, weights, validation)
        temperature = fit_temperature(logits, validation.labels)
        network, weights = calibrated_network(network), apply_temperature(weights, temperature)
    if draft.signature.input_kind == "real":
        draft = replace(draft, input_values=_input_values(labelled))
    names = draft.signature.class_names
    digest = rows_digest(labelled.inputs, labelled.labels, names)
    split = f"judged by {len(holdout):,} rows of {source}, {digest}"
    parts = Split(validation, validation, holdout, split)
    # No epoch was trained here.
    state = TrainingState(np.zeros(0, np.float32), np.zeros((0, 0), np.float32))
    analysis = analyse(network, weights, parts, state, temperature, output)
    evaluation = evaluate(network, weights, holdout)
    draft = replace(
        draft,
        network=network,
        dataset=replace(draft.dataset, split=split),
        metrics={
            "accuracy": evaluation.accuracy,
            "log_loss": evaluation.log_loss,
            "calibration_error": expected_calibration_error(analysis.served),
        },
    )
    page = HtmlReport(draft, analysis, source)
    challenger = Challenger(draft, weights, holdout, evaluation, page)
    manifest = publish(store, challenger, rules, alias)
    return Published(manifest, report(evaluation, names))


def _input_values(labelled: Examples) -> InputValues:
    """Return what is known of real inputs: the labelled rows stand for the training rows."""
    rows = labelled.inputs.reshape(len(labelled), -1)
    means = listed_means(rows.mean(axis=0, dtype=np.float64))
    return InputValues("real", float(rows.min()), float(rows.max()), means)

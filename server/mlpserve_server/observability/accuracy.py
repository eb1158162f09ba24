"""Live accuracy: what audited reports say of a version, and how far they may be off."""

from collections import defaultdict
from collections.abc import Mapping

from mlpserve_model.store.evidence.statistics import confidence_sequence, wilson_interval

__all__ = ["live_accuracy"]

_Series = dict[tuple[str, ...], float]


def live_accuracy(reports: Mapping[tuple[str, ...], float]) -> dict[str, _Series]:
    """Return the gauges of live accuracy by their names.

    Args:
        reports: the reports so far, by model, version, kind and answer.

    """
    audited: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(
        lambda: {"right": 0, "wrong": 0}
    )
    for (model, version, kind, answer), count in reports.items():
        if kind == "audit":
            audited[model, version][answer] += int(count)
    shares: _Series = {}
    bounds: _Series = {}
    for named, answers in audited.items():
        right, rows = answers["right"], sum(answers.values())
        shares[named] = right / rows
        for interval, between in (
            ("wilson", wilson_interval(right, rows)),
            ("sequence", confidence_sequence(right, rows)),
        ):
            for side, value in zip(("low", "high"), between, strict=True):
                bounds[(*named, interval, side)] = value
    return {"mlpserve_audit_accuracy": shares, "mlpserve_audit_accuracy_bound": bounds}

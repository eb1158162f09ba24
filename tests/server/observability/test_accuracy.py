import pytest

from mlpserve_model.store.evidence.statistics import confidence_sequence, wilson_interval
from mlpserve_server.observability.accuracy import live_accuracy
from mlpserve_server.observability.aggregation import WorkerAggregator

REPORTS = "mlpserve_reports_total"


def test_audited_reports_alone_speak_of_accuracy() -> None:
    gauges = live_accuracy(
        {
            ("mnist", "7", "audit", "right"): 96.0,
            ("mnist", "7", "audit", "wrong"): 4.0,
            ("mnist", "7", "volunteered", "wrong"): 500.0,
            ("mnist", "8", "audit", "wrong"): 1.0,
            ("mnist", "9", "volunteered", "right"): 3.0,
        }
    )
    assert gauges["mlpserve_audit_accuracy"] == {("mnist", "7"): 0.96, ("mnist", "8"): 0.0}
    bounds = gauges["mlpserve_audit_accuracy_bound"]
    assert (
        bounds["mnist", "7", "wilson", "low"],
        bounds["mnist", "7", "wilson", "high"],
    ) == wilson_interval(96, 100)
    sequence = bounds["mnist", "7", "sequence", "low"], bounds["mnist", "7", "sequence", "high"]
    assert sequence == confidence_sequence(96, 100)
    assert len(bounds) == 8


def test_the_reports_of_all_workers_are_one_sample() -> None:
    totals = WorkerAggregator()
    totals.add(1, [(REPORTS, ("mnist", "7", "audit", "right"), 40)])
    totals.add(
        2,
        [
            (REPORTS, ("mnist", "7", "audit", "right"), 35),
            (REPORTS, ("mnist", "7", "audit", "wrong"), 25),
        ],
    )
    shown = {
        (s.name, *s.labels.values()): s.value for family in totals.collect() for s in family.samples
    }
    assert shown["mlpserve_audit_accuracy", "mnist", "7"] == pytest.approx(0.75)
    low, high = wilson_interval(75, 100)
    assert shown["mlpserve_audit_accuracy_bound", "mnist", "7", "wilson", "low"] == pytest.approx(
        low
    )
    assert shown["mlpserve_audit_accuracy_bound", "mnist", "7", "wilson", "high"] == pytest.approx(
        high
    )


def test_nothing_is_said_without_reports() -> None:
    gauges = live_accuracy({})
    assert not any(gauges.values())
    assert all(
        family.samples == [] for family in WorkerAggregator().collect() if "audit_a" in family.name
    )

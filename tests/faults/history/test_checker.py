"""The checker of histories finds each kind of violation, and nothing in a good run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.faults.history.checker import reachable, recovery_seconds, violations
from tests.faults.history.records import SERVED, Call, Damage, History, Outage, Release, Span

ANSWERS = {version: np.eye(3, dtype=np.float32)[[version % 3, 0]] for version in range(1, 5)}
RELEASES = {
    version: Release(version, f"sha256:{version}", rejected=version == 3, answers=answers)
    for version, answers in ANSWERS.items()
}

DAMAGE = Damage(began=1, ended=3, version=2, unread=False)


def call(at: float, version: int = 1, selector: str = SERVED, replica: int = 0) -> Call:
    return Call(
        began=at, ended=at + 0.1, client=0, replicas=(replica,), connection=f"{replica}#1",
        selector=selector, rows=0, version=version, digest=f"sha256:{version}",
        probabilities=ANSWERS[version][0],
    )  # fmt: skip


def failed(at: float, code: str, selector: str = SERVED, replicas: tuple[int, ...] = (0,)) -> Call:
    return replace(call(at, selector=selector), replicas=replicas, code=code, message="no")


ENDS = [call(100.0, 4, replica=replica) for replica in range(3)]


def history(*calls: Call) -> History:
    """Return a run of three replicas that ends well, with these calls before."""
    return History(
        calls=[*calls, *ENDS], releases=RELEASES, healed=50.0, last_good=4,
        due_seconds=2.0,
    )  # fmt: skip


def test_a_good_run_has_no_violations() -> None:
    good = history(call(1), call(2, 2), call(3, 1, "1"), call(4, 2, "champion"), call(50.5, 2))
    assert violations(good) == []


@pytest.mark.parametrize(
    ("twin", "sentence"),
    [
        (replace(call(1), probabilities=ANSWERS[2][0]), "not what the weights of version 1 give"),
        (replace(call(1), digest="sha256:2"), "expected sha256:1"),
        (replace(call(1), version=9), "version 9 was never published"),
        (replace(call(1), selector="2"), "version 1 answered"),
        (call(1, 3), "which the gate rejected, answered"),
        (failed(1, "NOT_FOUND", "1"), "NOT_FOUND while a replica was reachable"),
        (failed(1, "UNAVAILABLE"), "UNAVAILABLE while a replica was reachable"),
        (failed(1, "INTERNAL", "3"), "INTERNAL while a replica was reachable"),
    ],
)
def test_one_wrong_call_is_a_violation(twin: Call, sentence: str) -> None:
    (found,) = violations(history(replace(twin, connection="")))
    assert sentence in found


def test_a_version_going_back_on_a_connection_is_a_violation() -> None:
    (found,) = violations(history(call(1, 2), call(2, 1)))
    assert found.endswith("version 1 after 2")


@pytest.mark.parametrize("other", ["connection", "selector"])
def test_a_version_may_go_back_between_connections_and_for_who_selects_it(other: str) -> None:
    change: dict[str, Any] = {other: "1"}
    earlier = replace(call(2, 1), **change)
    assert violations(history(call(1, 2), earlier)) == []


def test_an_answer_of_a_version_that_was_damaged_before_any_load_is_a_violation() -> None:
    damaged = replace(history(call(2, 2)), damages=[replace(DAMAGE, unread=True)])
    (found,) = violations(damaged)
    assert "version 2, which is damaged, answered" in found
    put_right_meanwhile = replace(damaged, calls=[replace(call(2, 2), ended=3.5), *ENDS])
    assert violations(put_right_meanwhile) == []
    assert violations(replace(damaged, damages=[DAMAGE])) == []


def test_a_failure_is_explained_by_a_moment_without_a_reachable_replica() -> None:
    out = [Outage(began=0, ended=5, replica=0), Outage(began=4, ended=9, replica=1)]
    both = replace(failed(3, "UNAVAILABLE", replicas=(0, 1)), ended=4.5)
    assert not reachable(both, out)
    assert violations(replace(history(both), outages=out)) == []
    for one in (replace(both, ended=3.5), replace(both, replicas=(0, 1, 2))):
        (found,) = violations(replace(history(one), outages=out))
        assert "while a replica was reachable" in found


@pytest.mark.parametrize(
    ("code", "selector", "fault"),
    [
        ("FAILED_PRECONDITION", "3", {}),
        (
            "FAILED_PRECONDITION",
            "2",
            {"damages": [Damage(began=0, ended=1, version=2, unread=False)]},
        ),
        ("UNAVAILABLE", "2", {"store_faults": [Span(began=0, ended=2)]}),
        ("NOT_FOUND", "champion", {"alias_faults": [Span(began=0, ended=2)]}),
    ],
)
def test_a_refusal_of_what_a_call_selects_is_explained_by_what_is_wrong_with_it(
    code: str, selector: str, fault: dict[str, Any]
) -> None:
    refused = history(failed(2, code, selector))
    assert violations(replace(refused, **fault)) == []
    (found,) = violations(replace(refused, calls=[failed(2, code), *refused.calls[1:]], **fault))
    assert f"{code} while a replica was reachable" in found


def test_wrong_aliases_are_kept_while_the_store_cannot_be_read() -> None:
    refused = replace(
        history(failed(5, "NOT_FOUND", "champion")), alias_faults=[Span(began=0, ended=1)]
    )
    (found,) = violations(refused)
    assert "NOT_FOUND while a replica was reachable" in found
    assert violations(replace(refused, store_faults=[Span(began=2, ended=4)])) == []


def test_a_champion_is_due_after_two_polls_in_which_nothing_kept_the_replica_from_following() -> (
    None
):
    releases = {**RELEASES, 2: replace(RELEASES[2], promoted=10.0)}
    late = replace(history(call(11.9), call(12.1)), releases=releases)
    (found,) = violations(late)
    assert "call to replica 0 at 12.100: version 1, expected 2, champion for 2.1 s" in found
    for harm in ("store_faults", "alias_faults", "outages"):
        span: Any = Outage(began=9, ended=10.5, replica=0)
        change: dict[str, Any] = {harm: [span]}
        assert violations(replace(late, **change)) == []
        change = {harm: [replace(span, ended=10.0)]}
        assert violations(replace(late, **change)) == [found]


def test_the_last_good_version_is_due_two_polls_after_the_last_fault() -> None:
    (late,) = violations(history(call(52.1, 2)))
    assert "version 2 2.1 s after the last fault, expected 4" in late
    silent = history()
    (found,) = violations(replace(silent, calls=[call(1, replica=3), *silent.calls]))
    assert found == "replica 3 answered no call after the last fault"
    assert recovery_seconds(silent) == dict.fromkeys(range(3), pytest.approx(50.1))

"""Reviews under writers at once, kills and a full disk: one verdict or the other, and whole."""

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlpserve_model.format.errors import StoreError
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews
from tests.support.corrections import correction, image
from tests.support.faults import fail_at
from tests.support.kills import killed_before_each_call

TAG = "ab12"


@pytest.fixture
def reviews(tmp_path: Path) -> Reviews:
    return Reviews(FeedbackPlace(tmp_path / "feedback"), "mnist")


def files(folder: Path) -> set[str]:
    """What readers see; hidden files are what a killed writer leaves."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


def test_reviewers_at_once_leave_one_whole_verdict(reviews: Reviews) -> None:
    def decide(number: int) -> None:
        reviews.add(TAG, (ACCEPTED, REJECTED)[number % 2], "x" * (number % 7) * 500)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decide, range(200)))
    (review,) = reviews.all().values()
    assert review.verdict in (ACCEPTED, REJECTED)
    assert set(review.reason) <= {"x"}


def test_a_killed_reviewer_leaves_the_old_verdict_or_the_new_one(
    reviews: Reviews, tmp_path: Path
) -> None:
    file = tmp_path / f"feedback/mnist/reviews/{TAG}.json"
    seen = {
        reviews.all()[TAG].verdict if reviews.all() else None
        for _ in killed_before_each_call(
            lambda: reviews.add(TAG, ACCEPTED), lambda: file.unlink(missing_ok=True)
        )
    }
    assert seen == {None, ACCEPTED}
    for calls in killed_before_each_call(
        lambda: reviews.add(TAG, REJECTED), lambda: reviews.add(TAG, ACCEPTED)
    ):
        assert reviews.all()[TAG].verdict in (ACCEPTED, REJECTED), calls
        assert files(tmp_path / "feedback") == {f"{TAG}.json"}
    assert reviews.all()[TAG].verdict == REJECTED


def test_a_killed_revocation_is_there_or_not_and_can_be_repeated(
    reviews: Reviews, tmp_path: Path
) -> None:
    file = tmp_path / "feedback/mnist/revoked/cc.json"
    seen = {
        reviews.revoked()
        for _ in killed_before_each_call(
            lambda: reviews.revoke("cc", "nonsense"), lambda: file.unlink(missing_ok=True)
        )
    }
    assert seen == {frozenset(), frozenset({"cc"})}
    assert reviews.revoked() == {"cc"}


def test_a_killed_server_leaves_a_whole_report_or_none(tmp_path: Path) -> None:
    place, report = FeedbackPlace(tmp_path / "feedback"), correction(image(1), "a")
    damage: list[str] = []
    for _ in killed_before_each_call(lambda: place.record(report)):
        found = list(place.reports("mnist", damaged=lambda *what: damage.append(str(what))))
        assert [r.tag for r in found] in ([], [report.tag])
    assert damage == []
    assert len(list(place.reports("mnist"))) == 1
    assert place.record(report) is False


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize("write", [lambda r: r.add(TAG, REJECTED), lambda r: r.revoke(TAG, "x")])
def test_on_a_full_disk_nothing_is_said_to_be_done(
    reviews: Reviews,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Reviews], None],
    call: str,
) -> None:
    if call != "mkdir":
        reviews.add(TAG, ACCEPTED)
        (tmp_path / "feedback/mnist/revoked").mkdir()
    with monkeypatch.context() as full:
        fail_at(full, tmp_path / "feedback", errno.ENOSPC, call)
        with pytest.raises(StoreError, match=r"cannot write to .*: No space left on device"):
            write(reviews)
    assert [r.verdict for r in reviews.all().values()] == ([] if call == "mkdir" else [ACCEPTED])
    assert reviews.revoked() == frozenset()
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    write(reviews)

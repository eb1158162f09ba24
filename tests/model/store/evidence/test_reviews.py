"""Reviews and revocations, kept beside the reports."""

from pathlib import Path

import pytest

from mlpserve_model.format.errors import StoreError
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


def test_reviews_are_kept_and_may_be_changed(place: FeedbackPlace) -> None:
    reviews = Reviews(place, "mnist")
    assert (reviews.all(), reviews.revoked()) == ({}, frozenset())
    reviews.add("ab12", ACCEPTED, "clearly an a")
    reviews.add("ab12", REJECTED, "no, a smear")
    reviews.revoke("cc", "reports nonsense")
    reviews.revoke("", "without tokens anybody may")
    (review,) = reviews.all().values()
    assert (review.verdict, review.reason) == (REJECTED, "no, a smear")
    assert "@" in review.by
    assert reviews.revoked() == {"cc", ""}
    assert Reviews(place, "letters").revoked() == frozenset()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"verdict": "perhaps", "by": "", "at": ""}', '{"more": 1}', "\udcff"]
)
def test_a_damaged_review_is_none_and_a_damaged_revocation_holds(
    place: FeedbackPlace, tmp_path: Path, text: str
) -> None:
    for folder in ("reviews", "revoked"):
        file = tmp_path / "feedback/mnist" / folder / "ab12.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(text.encode(errors="surrogateescape"))
    assert Reviews(place, "mnist").all() == {}
    assert Reviews(place, "mnist").revoked() == {"ab12"}


@pytest.mark.parametrize("name", ["../ab12", "../../ab12", "a/../../../ab12", "/ab12", "a//b"])
def test_no_name_leads_out_of_the_place(place: FeedbackPlace, tmp_path: Path, name: str) -> None:
    (tmp_path / "ab12.json").write_text("not a review")
    with pytest.raises(StoreError):
        Reviews(place, "mnist").add(name, ACCEPTED)
    with pytest.raises(StoreError):
        Reviews(place, "..").add("ab12", ACCEPTED)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["ab12.json"]
    assert (tmp_path / "ab12.json").read_text() == "not a review"

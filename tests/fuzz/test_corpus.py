"""The seeds of the fuzzer, and what it has found, through every target."""

import pytest

from tests.fuzz.target import CORPUS, Target, load_targets

TARGETS = load_targets()


@pytest.mark.parametrize("found", TARGETS.values(), ids=list(TARGETS))
def test_every_input_is_answered_or_refused_as_documented(found: Target) -> None:
    for seed in found.seeds:
        try:
            found(seed.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {seed}")
            raise


def test_each_target_has_seeds_and_each_folder_of_seeds_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(found.seeds for found in TARGETS.values())


def test_an_error_that_is_not_documented_is_a_finding() -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    Target("broken", broken, (LookupError,))(b"x")
    with pytest.raises(KeyError):
        Target("broken", broken, (ValueError,))(b"x")


def test_the_seeds_stay_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 100_000

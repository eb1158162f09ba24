"""What people see at a terminal."""

import numpy as np
import pytest

from mlpserve_client import ModelRef, Prediction
from mlpserve_client._cli import demo
from mlpserve_client._cli.terminal import Progress, bars, beside, picture, table


def prediction(probabilities: list[float], output_kind: str = "distribution") -> Prediction:
    array = np.array(probabilities, dtype=np.float32)
    label = int(array.argmax())
    names = tuple(f"class {number}" for number in range(len(array)))
    ref = ModelRef("m", 1, "")
    return Prediction(
        label, names[label], float(array[label]), array, ref, names, output_kind=output_kind
    )


def test_a_picture_shades_pairs_of_rows() -> None:
    values = np.array([[0, 0], [255, 0], [0, 128], [0, 0], [0, 255]], dtype=np.uint8)

    assert picture(values) == ["@ ", " +", " @"]


def test_a_dark_picture_stays_dark() -> None:
    assert picture(np.zeros((2, 3))) == ["   "]


def test_bars_mark_the_answer_and_grow_with_the_probability() -> None:
    low, high = bars(prediction([0.25, 0.75]))

    assert low.startswith("  class 0")
    assert high.startswith("> class 1")
    assert high.count("█") == 3 * low.count("█") == 18
    assert high.endswith("75.00%")


@pytest.mark.parametrize("kind", ["values", "unknown"])
def test_bars_of_any_values_stay_within_their_width(kind: str) -> None:
    lines = bars(prediction([-8e30, 1e30, 4e30], kind))

    assert [line.count("█") for line in lines] == [0, 6, 24]
    assert lines[2].endswith(" 4e+30") == (kind == "values")


def test_bars_are_as_long_as_a_terminal_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = picture(np.zeros((28, 14)))
    for columns, length in ((80, 24), (50, 15), (20, 4)):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = bars(prediction([0.0, 1.0]), drawn)
        assert lines[1].count("█") == length
    assert max(map(len, beside(drawn, lines).splitlines())) < 50


def test_only_the_likeliest_of_many_classes_have_bars() -> None:
    assert len(bars(prediction([0.01] * 99 + [0.01]))) == 10


def test_blocks_of_different_height_stand_side_by_side() -> None:
    assert beside(["ab", "c"], ["x"]) == "ab   x\nc"


def test_columns_of_a_table_line_up() -> None:
    assert table(("A", "LONG"), [("1", "2"), ("100", "")]) == "A    LONG\n1    2\n100"


def test_progress_rewrites_one_line_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress(200)
    progress.show(100)
    progress.show(200)

    text = capsys.readouterr().err
    assert " 50% 100/200" in text
    assert text.count("\r") == 2
    assert text.endswith("0 s left \n")


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(200).show(100)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", [8, 28, 64])
@pytest.mark.parametrize("label", demo.DIGITS)
def test_drawn_digits_are_light_strokes_within_a_dark_frame(label: int, size: int) -> None:
    drawn = demo.digit(label, size, size)

    assert drawn.shape == (size, size)
    assert drawn.max() == 1
    assert drawn.min() == 0
    assert drawn[:, 0].max() == drawn[:, -1].max() == 0

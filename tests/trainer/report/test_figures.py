import base64
import io
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve_trainer.evaluation.calibration import Reliability
from mlpserve_trainer.fitting.state import TrainingState
from mlpserve_trainer.report import png
from mlpserve_trainer.report.figures import calibration_curve, confusion_matrix, learning_curves
from mlpserve_trainer.report.svg import MAX_POINTS, nice_ticks

SVG = "{http://www.w3.org/2000/svg}"
FINITE = st.floats(-1e300, 1e300)


def state(losses: list[float]) -> TrainingState:
    nothing = np.zeros(0, np.float32)
    same = [0.5] * len(losses)
    return TrainingState(nothing, nothing, losses=losses, accuracies=same, learning_rates=same)


def labels(svg: str) -> list[str | None]:
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def pixels(uri: str) -> npt.NDArray[np.uint8]:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ((-0.1, 2.1), ["0", "0.5", "1", "1.5", "2"]),
        ((0.98761, 0.98769), ["0.98762", "0.98764", "0.98766", "0.98768"]),
        ((0, 20_000), ["0", "5,000", "10,000", "15,000", "20,000"]),
        ((-0.9e-9, 2.1e-9), ["0", "1e-09", "2e-09"]),
    ],
)
def test_ticks_are_round_numbers_with_the_digits_that_tell_them_apart(
    interval: tuple[float, float], expected: list[str]
) -> None:
    assert [label for _, label in nice_ticks(interval)] == expected


def test_ticks_of_epochs_are_whole() -> None:
    assert [label for _, label in nice_ticks((0.9, 3.1), integer=True)] == ["1", "2", "3"]


@given(st.lists(FINITE, min_size=1, max_size=9))
def test_whatever_the_losses_are_their_curve_is_a_drawing(losses: list[float]) -> None:
    for svg in learning_curves(state(losses)).split("</svg>")[:-1]:
        drawn = ElementTree.fromstring(svg + "</svg>").find(f"{SVG}polyline")
        assert drawn is not None
        points = np.array([p.split(",") for p in drawn.attrib["points"].split()], float)
        assert points.shape == (len(losses), 2)
        assert np.isfinite(points).all()


def test_a_long_training_has_a_short_curve() -> None:
    losses = np.linspace(2, 0.1, 100_000).tolist()
    assert learning_curves(state(losses)).count(",") < 10 * MAX_POINTS


def test_a_matrix_shows_its_counts_and_names() -> None:
    svg = confusion_matrix(np.array([[7, 1], [0, 12]]), ("<b>left</b>", "x" * 99))
    assert labels(svg)[:2] == ["<b>left</b>", "x" * 23 + "…"]
    assert labels(svg)[-3:] == ["7", "1", "12"]


def test_bins_of_few_rows_are_left_out_of_the_calibration_curve() -> None:
    bins = Reliability(np.array([9, 10, 50]), np.array([0.1, 0.5, 0.9]), np.array([1, 0.4, 0.8]))
    empty = Reliability(np.zeros(3, np.int64), np.zeros(3), np.zeros(3))
    drawn = ElementTree.fromstring(calibration_curve(bins, empty)).findall(f"{SVG}polyline")
    assert [len(line.attrib["points"].split()) for line in drawn] == [2, 2]


def test_an_image_holds_its_values() -> None:
    values = np.linspace(0, 1, 12).reshape(3, 4)
    np.testing.assert_array_equal(pixels(png.grey(values)), np.rint(values * 255))
    opacity = pixels(png.shares_of((1, 2, 3), values))
    assert opacity[2, 3].tolist() == [1, 2, 3, 255]
    np.testing.assert_array_equal(opacity[:, :, 3], np.rint(values * 255))


def test_weights_are_blue_below_zero_and_red_above() -> None:
    low, none, high = pixels(png.signed(np.array([[-2.0, 0.0, 2.0]])))[0].astype(int)
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert len(set(none.tolist())) == 1
    assert pixels(png.signed(np.zeros((2, 2)))).min() == none[0]

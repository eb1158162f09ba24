"""What callers pass in, and what they are told when it cannot be meant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import InvalidInputError
from mlpserve_client._inputs import (
    as_array,
    as_instances,
    as_wire_values,
    is_image,
    why_not_scaled,
)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (np.array([0.5, np.nan]), r"the value at \(1,\) is nan"),
        (np.array([[0.5, np.inf]]), r"the value at \(0, 1\) is inf"),
        (np.array([1e300]), "inf"),
        (np.array([0, 256]), "integers are raw values of 0 to 255"),
        (np.array([-1, 5]), "integers are raw values of 0 to 255"),
    ],
)
def test_values_of_another_scale_are_refused_with_a_hint(values: Any, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        as_wire_values(values)


@pytest.mark.parametrize(
    ("values", "hint"),
    [([0.0, 255.0], "divide by the maximum"), ([-1.0, 1.0], "undo any centring")],
)
def test_floats_beyond_0_to_1_are_sent_and_explained_once_a_model_refuses_them(
    values: list[float], hint: str
) -> None:
    sent = as_wire_values(np.array(values))
    assert sent.tolist() == values
    assert hint in str(why_not_scaled(sent))
    assert why_not_scaled(np.array([0, 0.5, 1], np.float32)) is None


class Raising:
    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def __array__(self, *arguments: object, **more: object) -> Any:
        raise self._error("as told")


@pytest.mark.parametrize("error", [KeyError, RuntimeError, RecursionError, OSError, MemoryError])
def test_no_foreign_exception_comes_out_of_an_array(error: type[Exception]) -> None:
    with pytest.raises(InvalidInputError, match="as told"):
        as_array(Raising(error))


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: [x, x]])
def test_masked_values_are_refused_and_a_mask_of_nothing_is_not(pack: Any) -> None:
    with pytest.raises(InvalidInputError, match="masked"):
        as_array(pack(np.ma.masked_array([1, 2], mask=[False, True])))
    assert as_array(pack(np.ma.masked_array([1, 2]))).size in (2, 4)


def test_bytes_are_no_numbers_and_the_message_says_what_to_pass() -> None:
    with pytest.raises(InvalidInputError, match="by its path"):
        as_array(b"\x89PNG")


def test_a_range_is_told_with_all_its_digits() -> None:
    assert "from 1 to 1.00000012" in str(why_not_scaled(np.array([1, 1 + 1e-7], np.float32)))


@pytest.mark.parametrize("values", [["a"], [None], [{}], [1j], [b"x"], [[1, 2], [3]]])
def test_what_holds_no_rectangle_of_numbers_is_refused(values: Any) -> None:
    with pytest.raises(InvalidInputError):
        as_array(values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_travel_as_little_endian_float32(dtype: Any) -> None:
    assert as_wire_values(np.array([0, 0.5, 1], dtype)).dtype == np.dtype("<f4")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_integers_travel_as_uint8(dtype: Any) -> None:
    assert as_wire_values(np.array([0, 128, 255], dtype)).tolist() == [0, 128, 255]
    assert as_wire_values(np.array([0, 128, 255], dtype)).dtype == np.uint8


def test_the_callers_array_is_never_changed() -> None:
    mine = np.array([0.0, 1.0])

    as_wire_values(mine)[:] = 0.5

    assert mine.tolist() == [0.0, 1.0]


def test_one_instance_is_no_batch_and_the_message_says_what_to_do() -> None:
    with pytest.raises(InvalidInputError, match=r"newaxis"):
        as_instances(np.zeros(784))
    with pytest.raises(InvalidInputError, match=r"\[image\]"):
        as_instances("seven.png")


def test_paths_are_images_and_arrays_are_not() -> None:
    assert is_image("seven.png")
    assert is_image(Path("seven.png"))
    assert not is_image(np.zeros(3))

"""Pillow images and image files are made to fit the model."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from mlpserve_client import Client, InvalidInputError
from mlpserve_client._images import fit, open_image
from tests.support.client import Expected, calls_of
from tests.support.images import png_of_size
from tests.support.numbers import SIGNALLING_NAN_32

if TYPE_CHECKING:
    from mlpserve_client._inputs import Instance

SHAPE = (28, 28)


def drawing(mode: str, size: tuple[int, int], paper: Any, ink: Any) -> Image.Image:
    """A thick seven somewhere in the upper left."""
    image = Image.new(mode, size, paper)
    w, h = size[0] // 3, size[1] // 3
    points = [(w // 3, h // 3), (w, h // 3), (w // 2, h)]
    ImageDraw.Draw(image).line(points, fill=ink, width=max(w // 6, 2))
    return image


def centre_of_mass(grey: npt.NDArray[np.float32]) -> tuple[float, float]:
    rows, columns = np.indices(grey.shape)
    return float((rows * grey).sum() / grey.sum()), float((columns * grey).sum() / grey.sum())


VARIANTS = {
    "black on white": ("L", "white", "black"),
    "white on black": ("L", "black", "white"),
    "blue on yellow": ("RGB", "lightyellow", "darkblue"),
    "pale paper": ("L", 200, 30),
    "bits": ("1", 1, 0),
    "palette": ("P", 255, 0),
    "deep": ("I;16", 65535, 0),
    "float": ("F", 1.0, 0.0),
    "ink on nothing": ("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
    "chalk on nothing": ("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_image_becomes_light_strokes_in_the_middle(variant: str) -> None:
    mode, paper, ink = VARIANTS[variant]
    if mode == "P":
        image = drawing("RGB", (90, 120), "white", "black").convert("P")
    else:
        image = drawing(mode, (90, 120), paper, ink)

    fitted = fit(image, SHAPE)

    assert fitted.shape == SHAPE
    assert fitted.dtype == np.float32
    assert fitted.max() > 0.9
    assert centre_of_mass(fitted) == pytest.approx((13.5, 13.5), abs=1)
    reference = fit(drawing("L", (90, 120), "black", "white"), SHAPE)
    np.testing.assert_allclose(fitted, reference, atol=0.35)
    assert np.abs(fitted - reference).mean() < 0.02


@pytest.mark.parametrize("inverted", [False, True])
def test_an_image_of_the_models_shape_keeps_every_pixel(inverted: bool) -> None:
    pixels = np.zeros(SHAPE, dtype=np.uint8)
    pixels[3:20, 5:9] = np.arange(17, dtype=np.uint8)[:, np.newaxis] * 15
    image = Image.fromarray(255 - pixels if inverted else pixels)

    np.testing.assert_allclose(fit(image, SHAPE), pixels / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28), (784,), (28, 28, 1), (8, 8), (20, 12)])
def test_images_fit_every_shape_that_can_hold_one(shape: tuple[int, ...]) -> None:
    fitted = fit(drawing("L", (300, 200), "white", "black"), shape)

    assert fitted.shape == shape
    assert fitted.max() > 0.5


@pytest.mark.parametrize("shape", [(4,), (5,), (16,), (3, 4, 5)])
def test_a_model_that_takes_no_images_says_so(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="not images"):
        fit(drawing("L", (30, 30), "white", "black"), shape)


@pytest.mark.parametrize("paper", ["white", "black", 128])
@pytest.mark.parametrize("size", [(100, 100), SHAPE, (1, 1)])
def test_a_blank_image_is_refused(paper: str, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="blank"):
        fit(Image.new("L", size, paper), SHAPE)


@pytest.mark.parametrize("size", [(3, 1000), (900, 2)])
def test_extreme_sizes_still_fit(size: tuple[int, int]) -> None:
    image = Image.new("L", size, "white")
    image.putpixel((1, 1), 0)

    assert fit(image, SHAPE).shape == SHAPE


def test_a_photograph_with_a_shadow_on_it_is_warned_of() -> None:
    light = np.full((100, 100), 230, dtype=np.uint8)
    light[20:, 10:] = 90
    image = Image.fromarray(light)

    with pytest.warns(UserWarning, match="the light may be uneven"):
        fit(image, SHAPE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_telephones_picture_is_seen_as_it_was_held(tmp_path: Path, orientation: int) -> None:
    upright = drawing("L", (90, 120), "white", "black")
    # The value of the tag says how to turn the stored pixels; here they are turned back.
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)

    np.testing.assert_array_equal(fit(tmp_path / "photo.png", SHAPE), fit(upright, SHAPE))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_deep_images_are_scaled_by_the_bits_that_they_use(mode: str, bits: int) -> None:
    white = 2**bits - 1
    deep = drawing(mode, SHAPE, 0, white)

    assert fit(deep, SHAPE).max() == 1


def closed() -> Image.Image:
    image = Image.new("L", (9, 9))
    image.close()
    return image


def with_pixel(value: Any) -> Image.Image:
    pixels = np.eye(9, dtype=np.float32)
    pixels[3, 4] = value
    return Image.fromarray(pixels)


UNUSABLE: dict[str, Callable[[], Image.Image]] = {
    "closed": closed,
    "empty": lambda: Image.new("L", (0, 5)),
    "nan": lambda: with_pixel(np.nan),
    "signalling nan": lambda: with_pixel(SIGNALLING_NAN_32),
    "infinite": lambda: with_pixel(np.inf),
    "infinitely dark": lambda: with_pixel(-np.inf),
    "unknown mode": lambda: Image.new("LAB", (9, 9)),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_no_foreign_exception_comes_out_of_an_image(kind: str) -> None:
    with pytest.raises(InvalidInputError):
        fit(UNUSABLE[kind](), SHAPE)


def test_what_is_no_image_is_named_without_an_objects_address(tmp_path: Path) -> None:
    (tmp_path / "seven.png").write_text("hello")

    with pytest.raises(InvalidInputError) as caught:
        fit(tmp_path / "seven.png", SHAPE)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "seven.png").write_bytes(content)

    with pytest.raises(InvalidInputError, match=r"seven\.png"):
        fit(tmp_path / "seven.png", SHAPE)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"missing\.png"):
        fit("missing.png", SHAPE)


def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of_size(8192, 8193))

    with pytest.raises(InvalidInputError, match=r"bomb\.png has 8192×8193 pixels"):
        fit(tmp_path / "bomb.png", SHAPE)


def test_a_jpeg_of_too_many_pixels_is_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    image = drawing("L", (500, 700), "white", "black")
    for suffix in ("jpg", "png"):
        image.save(tmp_path / f"seven.{suffix}")

    opened = open_image(tmp_path / "seven.jpg", "seven.jpg", max_pixels=100_000)

    assert opened.size == (250, 350)
    np.testing.assert_allclose(fit(opened, SHAPE), fit(image, SHAPE), atol=0.15)
    for name, limit in (("seven.png", 100_000), ("seven.jpg", 80_000)):
        with pytest.raises(InvalidInputError, match="500×700 pixels"):
            open_image(tmp_path / name, name, max_pixels=limit)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_fitted_as_a_small_one_is(mode: str, orientation: int) -> None:
    small = drawing("L", (250, 350), "white", "black")

    expected = fit(as_mode(small, mode, orientation), SHAPE)
    fitted = fit(as_mode(enlarged(small), mode, orientation), SHAPE)

    np.testing.assert_allclose(fitted, expected, atol=0.1)
    assert fitted.max() > 0.9


def test_of_a_large_image_no_array_of_its_size_is_made() -> None:
    large = enlarged(drawing("L", (250, 350), "white", "black"))

    tracemalloc.start()
    try:
        fit(large, SHAPE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * large.width * large.height  # of one such array of float32


def enlarged(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 12, image.height * 12), Image.Resampling.NEAREST)


def as_mode(image: Image.Image, mode: str, orientation: int) -> Image.Image:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return image


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_paths_and_pillow_images_are_instances(
    client: Client, expected: Expected, tmp_path: Path, suffix: str
) -> None:
    image = drawing("L", (90, 120), "white", "black")
    image.save(tmp_path / f"seven.{suffix}")
    opened = Image.open(tmp_path / f"seven.{suffix}")
    both: list[Instance] = [opened, tmp_path / f"seven.{suffix}"]

    answers = [
        client.predict(opened),
        client.predict(tmp_path / f"seven.{suffix}"),
        client.predict(str(tmp_path / f"seven.{suffix}")),
        *client.predict_batch(both),
        *client.predict_stream(both),
    ]

    assert len(answers) == 7
    fitted = np.rint(fit(opened, SHAPE) * 255).astype(np.uint8)[np.newaxis]
    for answer in answers:
        np.testing.assert_allclose(answer.probabilities, expected(fitted)[0], atol=0.01)


def test_a_batch_of_images_and_arrays_is_refused(client: Client) -> None:
    mixed: list[Instance] = [drawing("L", (90, 120), "white", "black"), np.zeros(SHAPE)]

    with pytest.raises(InvalidInputError, match="not some of each"):
        client.predict_batch(mixed)


def test_the_shape_is_asked_for_once_a_batch_or_stream(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images() -> Iterator[Image.Image]:
        for _ in range(30):
            yield drawing("L", (90, 120), "white", "black")

    asked = []
    calls = calls_of(client)
    model = calls.model

    def counting(selector: Any, timeout: float | None) -> Any:
        asked.append(selector)
        return model(selector, timeout)

    monkeypatch.setattr(calls, "model", counting)
    client.predict_batch(list(images()))
    list(client.predict_stream(images()))

    assert asked == [None, None]

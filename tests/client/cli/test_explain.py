"""`mlpserve-client explain`, as scripts and people use it."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mlpserve_client import Client
from mlpserve_client._cli import heat_map as maps
from mlpserve_client._cli.heat_map import heat_map, legend
from mlpserve_client._cli.main import main
from mlpserve_client._cli.terminal import beside
from mlpserve_client.testing import ModelServer, serve
from tests.support.client import Pixels

VALUES = np.array([[4, 0], [-4, 1], [0, -2], [0, 0]], np.float32)


class Terminal(io.TextIOWrapper):
    """Standard output that people look at."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding)

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def target(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPSERVE_TARGET", server.target)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def look(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))


def test_a_terminal_shows_two_rows_in_a_character_red_for_and_blue_against(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look(monkeypatch)

    first, second = heat_map(VALUES)

    assert first == "\x1b[38;5;196;48;5;27m▀\x1b[0m\x1b[38;5;95m▄\x1b[0m"
    assert second == " \x1b[38;5;61m▀\x1b[0m"
    assert "\x1b[" in legend()


def test_a_terminal_without_blocks_shows_the_stronger_of_two_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look(monkeypatch, "ascii")

    picture = "".join(heat_map(VALUES))

    assert picture.isascii()
    assert picture == "\x1b[48;5;196m \x1b[0m\x1b[48;5;95m \x1b[0m \x1b[48;5;61m \x1b[0m"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colours_gets_signs(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(monkeypatch)
    monkeypatch.setenv(variable, value)

    assert heat_map(VALUES) == ["#.", " -"]
    assert maps._SIGNS_FOR in legend()


def test_what_is_no_terminal_gets_signs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--demo", "--index", "0"]) == 0

    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert re.search(r"why \d \(mnist version 1\)", text)


def test_odd_heights_and_flat_maps_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert heat_map(VALUES[:3]) == ["#.", " -"]
    assert heat_map(np.zeros((2, 3))) == ["   "]


def test_colours_take_no_room_beside_other_text() -> None:
    assert beside(["\x1b[38;5;27m▀\x1b[0m", "ab"], ["x", "y"]) == (
        "\x1b[38;5;27m▀\x1b[0m    x\nab   y"
    )


def test_json_has_the_attributions(
    server: ModelServer, pixels: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "digits.npy", pixels)

    assert main(["explain", str(tmp_path / "digits.npy"), "--index", "1:3", "--json"]) == 0

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["row"], row["version"]) for row in rows] == [(1, 1), (2, 1)]
    with Client(server.target) as client:
        found = client.explain(pixels[2])
    np.testing.assert_allclose(rows[1]["attributions"], found.attributions, rtol=1e-6)
    assert (rows[1]["label"], rows[1]["score"]) == (found.label, pytest.approx(found.score))


def test_an_image_is_explained_for_the_class_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = PIL.Image.new("L", (60, 60), 255)
    image.paste(0, (20, 10, 30, 50))
    image.save(tmp_path / "digit.png")

    assert main(["explain", str(tmp_path / "digit.png"), "--label", "4"]) == 0

    text = capsys.readouterr().out
    assert "digit.png: why 4" in text
    assert "values that account for most of the difference" in text


def test_many_instances_are_listed(
    pixels: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "digits.npy", pixels)

    assert main(["explain", str(tmp_path / "digits.npy")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(pixels)
    assert all("score" in line for line in lines)


def test_what_is_no_image_has_figures_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(input_shape=(3,), class_names=("a", "b")) as server:
        assert main(["explain", "--demo", "--index", "0", "--target", server.target]) == 0

    assert "at [" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["99", "-1", "9" * 5000])
def test_a_label_that_is_no_class_fails_in_one_line(
    label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--demo", f"--label={label}"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert f"{label!r}: expected a number from 0 to 9 or the name of a class" in line


def test_a_label_is_a_number_or_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(input_shape=(3,), class_names=("ant", "bee", "0")) as server:
        explain = ["explain", "--demo", "--index", "0", "--json", "--target", server.target]
        for label, expected in (("bee", 1), ("1", 1), ("0", 0)):
            assert main([*explain, "--label", label]) == 0
            assert json.loads(capsys.readouterr().out)["label"] == expected
        assert main([*explain, "--label", "bea"]) == 2
    assert "did you mean 'bee'?" in capsys.readouterr().err

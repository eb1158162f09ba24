"""The page in a real browser: draw, answer, compare, call, fail, on a phone, for everybody."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from mlpserve_client.testing import serve
from tests.web.conftest import OpenPage, StartWeb, Web, needs_chromium

pytestmark = needs_chromium
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def digits(start_web: StartWeb) -> Iterator[Web]:
    """A gateway to a model of 28 x 28 pixels with two versions."""
    with serve(input_shape=(28, 28), class_names=DIGITS) as server:
        server.publish()
        yield start_web("--target", server.target, "--store", str(server.store))


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Move the mouse through points of 0 to 1, with the button down."""
    box = page.locator("#pad").bounding_box()
    assert box
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point)
    page.mouse.up()


RING = [(0.5 + 0.2 * math.cos(t / 4), 0.5 + 0.3 * math.sin(t / 4)) for t in range(27)]


def test_a_drawing_is_answered_with_bars_version_and_what_the_network_sees(
    digits: Web, open_page: OpenPage
) -> None:
    page = open_page(digits)

    draw(page, RING)

    expect(page.locator("#answer .name")).to_be_visible()
    expect(page.locator("#answer .bars li")).to_have_count(10)
    expect(page.locator("#answer .hint").first).to_contain_text("version 2")
    expect(page.locator("#seen")).to_be_visible()
    expect(page.locator("#served")).to_have_text("mnist, version 2")


def test_every_example_is_answered(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)

    for digit in DIGITS:
        page.get_by_role("button", name=digit, exact=True).click()
        expect(page.locator("#answer .name")).to_be_visible()


def test_two_versions_answer_the_same_input(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)
    page.get_by_role("button", name="8", exact=True).click()

    page.get_by_label("compared with").select_option("1")

    expect(page.locator("#second .hint").first).to_contain_text("version 1")
    expect(page.locator("#agreement")).to_contain_text(re.compile("Both versions|Version 2 says"))
    expect(page.locator("#map-list figcaption").nth(1)).to_contain_text("version 1")
    page.get_by_label("Version").first.select_option("1")
    expect(page.locator("#answer .hint").first).to_contain_text("version 1")
    page.get_by_label("compared with").select_option("")
    expect(page.locator("#agreement")).to_be_hidden()


def test_an_answer_is_explained_by_a_map_and_hidden_units(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)

    page.get_by_role("button", name="8", exact=True).click()

    expect(page.locator("#map-list figcaption")).to_contain_text("by version 2")
    answer = page.locator("#answer .name").inner_text()
    expect(page.get_by_role("img", name=f"what speaks for {answer}")).to_be_visible()
    expect(page.get_by_role("img", name="looks for").first).to_be_visible()
    colours = page.evaluate(
        """() => {
            const canvas = document.querySelector("#map-list canvas");
            const drawn = canvas.getContext("2d");
            const { data } = drawn.getImageData(0, 0, canvas.width, canvas.height);
            let coloured = 0;
            for (let i = 0; i < data.length; i += 4) coloured += data[i] !== data[i + 2];
            return [canvas.width, coloured > 20 && coloured < 500];
        }"""
    )
    assert colours == [28, True]  # the strokes are coloured, the ground is not


def test_a_dashboard_is_linked_to(digits: Web, start_web: StartWeb, open_page: OpenPage) -> None:
    elsewhere = "http://127.0.0.1:3000/d/mlpserve"
    with serve() as server:
        page = open_page(start_web("--target", server.target, "--dashboard", elsewhere))

        expect(page.get_by_role("link", name="Dashboard")).to_have_attribute("href", elsewhere)
    expect(open_page(digits).locator("#dashboard")).to_be_hidden()


def test_without_metrics_there_is_no_live_traffic(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)

    expect(page.locator("#traffic")).to_be_hidden()
    expect(page.locator("#more")).to_contain_text("live traffic with --metrics")
    expect(page.locator("#more")).not_to_contain_text("--store")


def test_the_versions_are_listed(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)

    expect(page.locator("#versions tr")).to_have_count(2)
    expect(page.locator("#versions tr").first).to_contain_text("champion")
    expect(page.get_by_role("link", name="report").first).to_be_visible()


def test_a_file_is_classified(digits: Web, open_page: OpenPage, tmp_path: Path) -> None:
    pixels = np.zeros((50, 50), np.uint8)
    pixels[10:40, 22:28] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "one.png")
    page = open_page(digits)

    page.locator("#file").set_input_files(tmp_path / "one.png")

    expect(page.locator("#answer .name")).to_be_visible()


def test_a_file_that_is_no_picture_is_refused_in_words(
    digits: Web, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    page = open_page(digits)

    page.locator("#file").set_input_files(tmp_path / "text.png")

    expect(page.locator("#problem")).to_be_visible()
    expect(page.locator("#problem")).to_contain_text("the picture")


def test_the_call_shown_for_curl_gives_the_same_answer(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)
    page.get_by_role("button", name="3", exact=True).click()
    expect(page.locator("#answer .name")).to_be_visible()

    command = page.locator("#snippet").inner_text()

    assert command.startswith(f"curl {digits.address}/v2/models/mnist/infer -d '")
    body = json.loads(command.partition(" -d ")[2].strip("'"))
    (label,) = digits.call("/v2/models/mnist/infer", body).json["outputs"][0]["data"]
    assert page.locator("#answer .name").inner_text() == DIGITS[label]
    page.get_by_role("button", name="Python").click()
    expect(page.locator("#snippet")).to_contain_text("from mlpserve_client import Client")


def test_the_keyboard_draws(digits: Web, open_page: OpenPage) -> None:
    page = open_page(digits)
    page.locator("#pad").focus()

    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowDown")

    expect(page.locator("#answer .name")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#answer .name")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_everybody_can_use_it(digits: Web, open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(digits, width, scheme)
    page.get_by_role("button", name="8", exact=True).click()
    page.get_by_label("compared with").select_option("1")
    expect(page.locator("#second .bars")).to_be_visible()

    found = Axe().run(page)

    assert found.response["violations"] == [], found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "it scrolls sideways"
    )

"""Digits that are drawn, not scanned: `augmented` reads them, once they fit the model."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mlpserve_client import Client
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.drawing import Strokes, distorted, drawn
from tests.support.mnist import MNIST, needs_mnist
from tests.web.conftest import CHROMIUM, StartWeb, load, needs_chromium

SIDE, PEN = 280, 20  # of the page's pad

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), needs_mnist]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a version that the recipe `augmented` has trained on MNIST."""
    store = tmp_path_factory.mktemp("store")
    program = str(Path(sys.executable).with_name("mlpserve-trainer"))
    command = [program, "train", "--recipe", "augmented", "--dataset", "mnist"]
    places = ["--data-dir", str(MNIST), "--store", str(store), "--cache-dir", str(store / "cache")]
    done = subprocess.run([*command, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    settings = Settings(store=store, listen=("127.0.0.1:0",), drain_seconds=0)
    with Server(settings) as server, Client(server.address) as client:
        client.wait_until_ready(10)
        yield server.address


def test_drawings_are_read_once_they_are_centred_and_scaled(target: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10), 20)
    images = [PIL.Image.fromarray(drawn(distorted(n, rng), SIDE, PEN)) for n in labels.tolist()]
    shrunk = np.stack([np.asarray(image.resize((28, 28))) for image in images])

    with Client(target) as client:
        before = (client.predict_batch(shrunk).labels == labels).mean()
        after = (client.predict_batch(images).labels == labels).mean()

    print(f"\n200 drawings: {before:.1%} right as they are, {after:.1%} centred and scaled")
    assert after >= 0.95
    assert before < after - 0.2


@needs_chromium
def test_digits_drawn_by_mouse_are_answered_right(target: str, start_web: StartWeb) -> None:
    web, rng = start_web("--target", target), np.random.default_rng(1)
    answers = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for digit in range(10):
            page = browser.new_page()
            load(page, web.address)
            draw(page, distorted(digit, rng))
            # Until the answer to the whole drawing is there: those to its parts come before.
            expect(page.locator("#answers")).to_have_attribute("aria-busy", "false")
            answers.append(page.locator("#answer .name").inner_text())
            page.close()
        browser.close()

    print(f"\ndrawn by mouse, 0 to 9: {' '.join(answers)}")
    assert sum(answer == str(digit) for digit, answer in enumerate(answers)) >= 9


def draw(page: Page, strokes: Strokes) -> None:
    """Move the mouse along the strokes with the button down."""
    box = page.locator("#pad").bounding_box()
    assert box
    for stroke in strokes:
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*at[0])
        page.mouse.down()
        for point in at[1:]:
            page.mouse.move(*point, steps=3)
        page.mouse.up()

"""The page and its servers: none, without a model, with tokens, with metrics, of other inputs."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from mlpserve_client import Client
from mlpserve_client.testing import serve
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.publishing import publish_to
from tests.web.conftest import OpenPage, StartWeb, needs_chromium

pytestmark = needs_chromium


@contextmanager
def calling(call: Callable[[], object]) -> Iterator[None]:
    """Call again and again meanwhile."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.05):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_live_traffic_is_shown_where_there_are_metrics(
    start_web: StartWeb, open_page: OpenPage, tmp_path: Path
) -> None:
    publish_to(Store(tmp_path, "mnist"))
    settings = Settings(
        store=tmp_path, listen=("127.0.0.1:0",), metrics_listen="127.0.0.1:0", poll_seconds=0.02,
        drain_seconds=0,
    )  # fmt: skip
    with Server(settings) as running, Client(running.address) as client:
        client.wait_until_ready(10)
        metrics = f"http://{running.metrics_address}/metrics"
        page = open_page(start_web("--target", running.address, "--metrics", metrics))

        expect(page.locator("#traffic")).to_be_visible()
        expect(page.locator("#traffic-classes")).to_contain_text("None yet: draw something")
        expect(page.locator("#traffic-evidence")).to_contain_text("mlpserve-server --feedback")
        with calling(lambda: client.predict_batch(np.full((5, 12), 0.5, np.float32))):
            # Of the time between two looks.
            expect(page.locator("#traffic-figures")).to_contain_text(re.compile("median≤ .* ms"))
        expect(page.locator("#traffic-classes")).to_contain_text(re.compile("[1-9]"))


def test_a_page_whose_server_comes_back_says_so(
    start_web: StartWeb, open_page: OpenPage, tmp_path: Path
) -> None:
    publish_to(Store(tmp_path, "mnist"))
    address = f"unix:{tmp_path}/socket"
    settings = Settings(store=tmp_path, listen=(address,), poll_seconds=0.02, drain_seconds=0)
    page = open_page(start_web("--target", address, "--timeout", "0.5"))
    expect(page.locator("#problem")).to_be_visible()

    with Server(settings):
        expect(page.locator("#served")).to_have_text("mnist, version 1", timeout=30_000)
        expect(page.locator("#problem")).to_be_hidden()


def test_of_several_models_the_page_says_how_one_is_chosen(
    start_web: StartWeb, open_page: OpenPage, tmp_path: Path
) -> None:
    for name in ("ants", "bees"):
        publish_to(Store(tmp_path, name))
    settings = Settings(store=tmp_path, model=("*",), listen=("127.0.0.1:0",), drain_seconds=0)
    with Server(settings) as running, Client(running.address) as client:
        client.wait_until_ready(10)
        page = open_page(start_web("--target", running.address))
        expect(page.locator("#problem")).to_contain_text("served are ants, bees")
        expect(page.locator("#problem")).to_contain_text("mlpserve web --model NAME")
        expect(page.locator("#versions")).to_have_text("Not known.")


def test_a_server_with_tokens_is_asked_with_one(
    start_web: StartWeb, open_page: OpenPage, tmp_path: Path
) -> None:
    publish_to(Store(tmp_path / "store", "mnist"))
    tokens, token = tmp_path / "tokens", "a-token-of-many-characters"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token}\n")
    settings = Settings(
        store=tmp_path / "store", listen=("127.0.0.1:0",), token_file=tokens, poll_seconds=0.02,
        drain_seconds=0,
    )  # fmt: skip
    with Server(settings) as running:
        page = open_page(start_web("--target", running.address, "--timeout", "5"))
        expect(page.locator("#problem")).to_contain_text("token")

        page.get_by_label("expect a token").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#problem")).to_contain_text("token")
        page.get_by_label("expect a token").fill(token)
        page.get_by_role("button", name="Use it").click()

        expect(page.locator("#served")).to_have_text("mnist, version 1")
        expect(page.locator("#token-form")).to_be_hidden()
        assert Axe().run(page).response["violations"] == []


def test_a_server_without_a_model_is_said_to_have_none(
    start_web: StartWeb, open_page: OpenPage, tmp_path: Path
) -> None:
    settings = Settings(store=tmp_path, listen=("127.0.0.1:0",), drain_seconds=0)
    (tmp_path / "mnist").mkdir()
    with Server(settings) as running:
        page = open_page(start_web("--target", running.address, "--timeout", "1"))

        expect(page.locator("#served")).to_contain_text("No model answers")
        expect(page.locator("#problem")).to_contain_text("no model")
        expect(page.locator("#versions")).to_contain_text("mlpserve train publishes one")


def test_a_model_of_other_inputs_gets_a_form(start_web: StartWeb, open_page: OpenPage) -> None:
    with serve(input_shape=(3,), class_names=("yes", "no")) as server:
        page = open_page(start_web("--target", server.target))
        expect(page.locator("#picture")).to_be_hidden()

        page.get_by_label("3 numbers of 0 to 1").fill("0.1, 0.2 0.3")
        page.get_by_role("button", name="Classify").click()

        expect(page.locator("#answer .name")).to_be_visible()
        expect(page.locator("#why")).to_be_hidden()
        page.get_by_label("3 numbers").fill("1")
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#problem")).to_contain_text("1 numbers, expected 3")


def test_without_a_server_the_page_says_so(start_web: StartWeb, open_page: OpenPage) -> None:
    page = open_page(start_web("--target", "127.0.0.1:1", "--timeout", "0.5"))

    expect(page.locator("#problem")).to_contain_text("127.0.0.1:1")

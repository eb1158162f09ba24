"""A real `mlpserve-web` in a process of its own, before a real model server."""

import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from mlpserve_client.testing import ModelServer, serve
from tests.support.waiting import SECONDS

# As long as everything else that a test waits for.
expect.set_options(timeout=SECONDS * 1000)
SHAPE = (3, 4)
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """A running `mlpserve-web`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address  # http://host:port
        self.host = urlsplit(address).hostname or ""
        self.port = urlsplit(address).port or 0

    def call(
        self,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        method: str = "",
        **headers: str,
    ) -> Answer:
        """Send a request; POST if there is a body. Underscores in names of headers are dashes."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()


StartWeb = Callable[..., Web]
OpenPage = Callable[..., Page]  # of a gateway; width in pixels, scheme light or dark


@pytest.fixture(scope="module")
def start_web() -> Iterator[StartWeb]:
    """Start `mlpserve-web` on a free port, with further flags."""
    running: list[Web] = []

    def start_web(*flags: str) -> Web:
        command = [sys.executable, "-P", "-m", "mlpserve_web", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            [*command, "--log-format", "json", *flags], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "listening":
                running.append(Web(process, event["address"]))
                return running[-1]
        raise AssertionError(f"mlpserve-web ended with {process.wait()}")

    yield start_web
    for web in running:
        web.process.kill()
        web.process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """A model server with a network of random weights."""
    with serve(input_shape=SHAPE, class_names=("circle", "square", "star")) as server:
        yield server


@pytest.fixture(scope="module")
def web(server: ModelServer, start_web: StartWeb) -> Web:
    return start_web("--target", server.target)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--renderer-process-limit=1",
        ]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def load(page: Page, address: str) -> None:
    """Open an address with all that it loads.

    Chromium drops what it is loading whenever an interface of the machine appears or vanishes, as
    each container's does: then it is opened again.
    """
    dropped: list[str] = []

    def note(request: Request) -> None:
        if request.failure and NETWORK_CHANGED in request.failure:
            dropped.append(request.url)

    page.on("requestfailed", note)
    while True:
        dropped.clear()
        try:
            page.goto(address)
        except PlaywrightError as error:
            if NETWORK_CHANGED not in str(error):
                raise
        else:
            if not dropped:
                break
    page.remove_listener("requestfailed", note)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open the page of a gateway; whatever the browser complains of fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(web: Web, width: int = 1200, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((web.address, "data:", "blob:"))
                else complaints.append(f"it asked {request.url}")
            ),
        )
        load(page, web.address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []

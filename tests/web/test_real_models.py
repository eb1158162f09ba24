"""The page of a model of real numbers: a form, any numbers, and no picture."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from mlpserve_client import Client
from mlpserve_model import Signature, Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from tests.support.publishing import publish_to
from tests.web.conftest import OpenPage, StartWeb, needs_chromium

NAMES = ("circle", "square", "star")


@pytest.fixture
def server(tmp_path: Path) -> Server:
    # Of the shape of an image: that does not make pictures of its numbers.
    publish_to(Store(tmp_path, "mnist"), signature=Signature((3, 4), 1.0, NAMES, "real"))
    return Server(Settings(store=tmp_path, listen=("127.0.0.1:0",), drain_seconds=0))


def test_numbers_of_any_size_are_classified_and_a_picture_is_refused(
    server: Server, start_web: StartWeb
) -> None:
    with server, Client(server.address) as client:
        client.wait_until_ready(10)
        web = start_web("--target", server.address)
        assert web.call("/api/models").json["versions"][0]["input_kind"] == "real"
        body, kind = json.dumps([-7.5] * 12).encode(), "application/json"
        assert web.call("/api/classify", body, Content_Type=kind).json["name"] in NAMES
        refused = web.call("/api/classify", b"\x89PNG", Content_Type="image/png")
        assert refused.status == 400
        assert "real numbers" in refused.json["error"]


@needs_chromium
def test_the_page_has_a_form_for_them(
    server: Server, start_web: StartWeb, open_page: OpenPage
) -> None:
    with server, Client(server.address) as client:
        client.wait_until_ready(10)
        page = open_page(start_web("--target", server.address))
        expect(page.locator("#picture")).to_be_hidden()
        page.get_by_label("12 numbers, with commas or spaces").fill("-7 12 " * 6)
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#answer .name")).to_be_visible()

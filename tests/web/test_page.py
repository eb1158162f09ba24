"""What the page asks for, and with which headers it comes; the page itself: test_browser.py."""

import io
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mlpserve_client import Client
from mlpserve_client.testing import ModelServer
from tests.web.conftest import SHAPE, StartWeb, Web


@pytest.fixture(scope="module")
def page(server: ModelServer, start_web: StartWeb) -> Web:
    return start_web("--target", server.target, "--store", str(server.store))


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/page/icon.svg"])
def test_the_page_loads_nothing_from_elsewhere(page: Web, path: str) -> None:
    answer = page.call(path)

    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_file_outside_the_pages_folder_is_served(page: Web) -> None:
    for path in ("/page/../page.py", "/page/%2e%2e/page.py", "/page//etc/passwd"):
        assert page.call(path).status == 404


def test_the_versions_are_listed(page: Web, server: ModelServer) -> None:
    listed = page.call("/api/models").json

    assert listed["target"] == server.target
    (version,) = listed["versions"]
    assert (version["version"], version["state"], version["aliases"]) == (1, "ACTIVE", ["champion"])
    assert version["input_shape"] == list(SHAPE)


def test_numbers_are_classified_as_the_client_library_does(page: Web, server: ModelServer) -> None:
    x = np.random.default_rng(3).random(12, np.float32)

    answer = page.call(
        "/api/classify", json.dumps(x.tolist()).encode(), Content_Type="application/json"
    )

    with Client(server.target) as client:
        expected = client.predict(x)
    assert (answer.json["label"], answer.json["version"]) == (expected.label, 1)
    np.testing.assert_allclose(answer.json["probabilities"], expected.probabilities, rtol=1e-6)
    assert answer.json["instance"]["shape"] == list(SHAPE)
    np.testing.assert_allclose(answer.json["instance"]["values"], x, rtol=1e-6)


def test_a_picture_is_fitted_and_comes_back_as_the_network_sees_it(page: Web) -> None:
    pixels = np.zeros((60, 80), np.uint8)
    pixels[20:40, 30:36] = 255

    answer = page.call("/api/classify", png(pixels), Content_Type="image/png").json

    values = np.reshape(answer["instance"]["values"], SHAPE)
    assert values.max() > 0.5
    assert len(answer["probabilities"]) == 3


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"no picture", "image/png", "the picture"),
        (b"[1, 2]", "application/json", "2 numbers, expected 12"),
        (b"[1, ", "application/json", "not a JSON array"),
        (b'["a"]', "application/json", "not a JSON array"),
        (b"[[1], [2, 3]]", "application/json", "not a JSON array"),
        (json.dumps([7.0] * 12).encode(), "application/json", "0 to 1"),
    ],
)
def test_what_cannot_be_classified_is_refused(
    page: Web, body: bytes, kind: str, message: str
) -> None:
    answer = page.call("/api/classify", body, Content_Type=kind)

    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert message in answer.json["error"]


@pytest.mark.parametrize(("query", "status"), [("1", 200), ("7", 404), ("x", 400), ("-1", 400)])
def test_a_version_is_chosen(page: Web, query: str, status: int) -> None:
    body = json.dumps([0.5] * 12).encode()

    path = f"/api/classify?version={query}"
    assert page.call(path, body, Content_Type="application/json").status == status


def test_a_report_that_is_not_there_is_not_found(page: Web, web: Web) -> None:
    assert page.call("/api/reports/1").status == 404  # a test's version has none
    assert page.call("/api/reports/9").status == 404
    assert "no --store" in web.call("/api/reports/1").json["error"]

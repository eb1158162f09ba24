"""What the page asks for, and with which headers it comes; the page itself: test_browser.py."""

import io
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import mlpserve_web
from mlpserve_client import Client, InvalidInputError
from mlpserve_client.testing import ModelServer
from mlpserve_model import Store
from mlpserve_server.server import Server
from mlpserve_server.settings import Settings
from mlpserve_web.traffic import replicas
from tests.support.client import Scripted
from tests.support.publishing import publish_to
from tests.support.waiting import eventually
from tests.web.conftest import SHAPE, StartWeb, Web

STATIC = Path(mlpserve_web.__path__[0]) / "static"


@pytest.fixture(scope="module")
def page(server: ModelServer, start_web: StartWeb) -> Web:
    return start_web("--target", server.target, "--store", str(server.store))


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("path", ["/", *(f"/page/{file.name}" for file in STATIC.iterdir())])
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


def test_an_answer_comes_with_its_explanation(page: Web, server: ModelServer) -> None:
    x = np.random.default_rng(3).random(12, np.float32)
    body = json.dumps(x.tolist()).encode()

    why = page.call("/api/classify", body, Content_Type="application/json").json["explanation"]

    with Client(server.target) as client:
        found = client.explain(x, activations=True)
    np.testing.assert_allclose(why["attributions"], found.attributions.ravel(), atol=1e-6)
    fired = found.activations[0]
    numbers = [unit["number"] for unit in why["units"]]
    assert numbers == [n for n in np.argsort(-fired, kind="stable")[:6] if fired[n] > 0]
    w = Store(server.store, "mnist").load(1).weights[0].w
    for unit in why["units"]:
        assert unit["activation"] == pytest.approx(float(fired[unit["number"]]))
        np.testing.assert_allclose(unit["weights"], w[:, unit["number"]])


def test_without_the_store_nothing_is_said_of_units(web: Web) -> None:
    body = json.dumps([0.5] * 12).encode()

    why = web.call("/api/classify", body, Content_Type="application/json").json["explanation"]

    assert len(why["attributions"]) == 12
    assert why["units"] == []


def test_of_weights_that_did_not_answer_nothing_is_shown(
    server: ModelServer, start_web: StartWeb, tmp_path: Path
) -> None:
    publish_to(Store(tmp_path, "mnist"), seed=9)  # another version 1
    web = start_web("--target", server.target, "--store", str(tmp_path))
    body = json.dumps([0.5] * 12).encode()

    answer = web.call("/api/classify", body, Content_Type="application/json").json

    assert answer["explanation"]["units"] == []


def test_a_server_that_does_not_explain_answers_all_the_same(start_web: StartWeb) -> None:
    server = Scripted()
    try:
        web = start_web("--target", server.target)
        answer = web.call("/api/classify", b"[0.5, 0.5]", Content_Type="application/json").json
    finally:
        server.close()

    assert (answer["name"], answer["explanation"]) == ("yes", None)


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


def test_live_traffic_is_that_of_the_metrics(start_web: StartWeb, tmp_path: Path) -> None:
    store = Store(tmp_path, "mnist")
    publish_to(store)
    publish_to(store, seed=1, promote=False)
    settings = Settings(
        store=tmp_path,
        listen=("127.0.0.1:0",),
        metrics_listen="127.0.0.1:0",
        shadow="2",
        poll_seconds=0.02,
        drain_seconds=0,
    )
    with Server(settings) as running, Client(running.address) as client:
        client.wait_until_ready(10)
        web = start_web(
            "--target", running.address, "--metrics", f"http://{running.metrics_address}/metrics"
        )
        assert web.call("/api/models").json["traffic"] is True
        client.predict_batch(np.full((5, 12), 0.5, np.float32))
        with pytest.raises(InvalidInputError):
            client.predict([0.5])

        def is_counted() -> bool:
            """All of it: what came last is counted a tick later."""
            answer = web.call("/api/traffic")
            if answer.status == 503:  # the page waits two seconds for the metrics
                return False
            seen = answer.json
            rows = sum(one["rows"] for one in seen["classes"])
            judged = sum(one["agreed"] + one["differed"] for one in seen["shadows"])
            return (rows, judged, seen["failed"]) == (5, 5, 1) and seen["calls"] >= 2

        eventually(is_counted)
        seen = web.call("/api/traffic").json
        assert seen["seconds"]["counts"] == sorted(seen["seconds"]["counts"])
        assert len(seen["seconds"]["counts"]) == len(seen["seconds"]["bounds"]) + 1
        assert seen["seconds"]["counts"][-1] == seen["calls"]
        assert [shadow["version"] for shadow in seen["shadows"]] == ["2"]


@pytest.mark.parametrize(
    ("scheme", "read"),
    [
        ("http", ["http://127.0.0.1:9464/metrics", "http://127.0.0.2:9464/metrics"]),
        ("https", ["https://server:9464/metrics"]),
    ],
)
def test_replicas_that_share_a_name_are_all_read(
    monkeypatch: pytest.MonkeyPatch, scheme: str, read: list[str]
) -> None:
    hosts = ("127.0.0.2", "127.0.0.1")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 9464)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert replicas(f"{scheme}://server:9464/metrics") == read


def test_metrics_that_cannot_be_read_are_said_to_be(
    server: ModelServer, start_web: StartWeb
) -> None:
    web = start_web("--target", server.target, "--metrics", "http://127.0.0.1:1/metrics")

    answer = web.call("/api/traffic")

    assert (answer.status, list(answer.json)) == (503, ["error"])
    assert "the metrics cannot be read" in answer.json["error"]


def test_a_page_that_has_no_metrics_is_said_to_be_none(
    server: ModelServer, start_web: StartWeb, web: Web
) -> None:
    address = f"{web.address}/v2/models/mnist"  # JSON
    answer = start_web("--target", server.target, "--metrics", address).call("/api/traffic")

    assert (answer.status, list(answer.json)) == (503, ["error"])
    assert "the metrics cannot be read" in answer.json["error"]


def test_without_metrics_there_is_no_live_traffic(page: Web) -> None:
    assert page.call("/api/models").json["traffic"] is False
    assert page.call("/api/traffic").status == 404


def test_a_report_that_is_not_there_is_not_found(page: Web, web: Web) -> None:
    assert page.call("/api/reports/1").status == 404  # a test's version has none
    assert page.call("/api/reports/9").status == 404
    assert "no --store" in web.call("/api/reports/1").json["error"]

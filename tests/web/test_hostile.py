"""Requests that are made to do harm: each is refused clearly, and costs others nothing."""

import http.client

import pytest

from mlpserve_client.testing import ModelServer
from tests.web.conftest import Answer, StartWeb, Web

NUMBERS = ("9" * 18, "9" * 19, "9" * 300, "9" * 5000, "-1", "1e3", "%C2%B2", "%D9%A1")


@pytest.fixture(scope="module")
def page(server: ModelServer, start_web: StartWeb) -> Web:
    return start_web("--target", server.target, "--store", str(server.store))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/reports/{}"),
        ("GET", "/v2/models/mnist/versions/{}"),
        ("GET", "/v2/models/mnist/versions/{}/ready"),
        ("POST", "/api/classify?version={}"),
    ],
)
def test_a_number_that_is_no_version_is_the_callers_fault(
    page: Web, method: str, path: str, number: str
) -> None:
    answer = page.call(path.format(number), method=method)

    assert answer.status in (400, 404)
    assert list(answer.json) == ["error"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize("number", NUMBERS)
def test_a_length_that_is_no_number_is_the_callers_fault(page: Web, number: str) -> None:
    answer = page.call("/v2/models/mnist/infer", b"{}", Inference_Header_Content_Length=number)

    assert (answer.status, list(answer.json)) == (400, ["error"])


@pytest.mark.parametrize(
    "token", [b"t\xc3\xb6ken", b"\xff", b"two words", b"t\ttab", b"t" * 8193, b"t" * 40_000]
)
def test_what_cannot_be_a_token_is_unauthenticated(page: Web, token: bytes) -> None:
    answer = with_token(page, token)

    assert (answer.status, list(answer.json)) == (401, ["error"])
    assert token.decode("latin-1") not in answer.json["error"]


def test_the_longest_token_reaches_the_servers(page: Web) -> None:
    assert with_token(page, b"t" * 8192).status == 200  # these want none


def with_token(web: Web, token: bytes) -> Answer:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=30)
    try:
        connection.putrequest("GET", "/v2/models/mnist")
        connection.putheader("Authorization", b"Bearer " + token)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read())
    finally:
        connection.close()

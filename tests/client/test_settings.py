"""Arguments win over the environment, which wins over the defaults."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client, SettingsError, Tls, _channel
from mlpserve_client._settings import resolve


def test_the_defaults_are_a_server_on_this_machine_and_ten_seconds() -> None:
    settings = resolve({})

    assert settings.targets == ("localhost:50051",)
    assert settings.timeout == 10
    assert settings.tls is None
    assert settings.token is None


def test_the_environment_wins_over_the_defaults() -> None:
    settings = resolve({"MLPSERVE_TARGET": "a:1, b:2", "MLPSERVE_TIMEOUT": "3"})

    assert settings.targets == ("a:1", "b:2")
    assert settings.timeout == 3


def test_arguments_win_over_the_environment() -> None:
    environ = {"MLPSERVE_TARGET": "a:1", "MLPSERVE_TIMEOUT": "3"}

    settings = resolve(environ, target="c:4", timeout=5)

    assert (settings.targets, settings.timeout) == (("c:4",), 5)


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("gateway", "gateway:50051"),
        ("[::1]", "[::1]:50051"),
        ("gateway:1", "gateway:1"),
        ("unix:/run/mlpserve.sock", "unix:/run/mlpserve.sock"),
        ("dns:///gateway:1", "dns:///gateway:1"),
        ("dns:///localhost", "dns:///localhost:50051"),
        ("dns:gateway", "dns:gateway:50051"),
        ("dns://8.8.8.8/gateway", "dns://8.8.8.8/gateway:50051"),
        ("::1", "[::1]:50051"),
        ("fe80::1", "[fe80::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("ipv4:10.0.0.1:7", "ipv4:10.0.0.1:7"),
    ],
)
def test_a_target_without_a_port_gets_the_usual_one(given: str, target: str) -> None:
    assert resolve({}, target=given).targets == (target,)


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:", "gateway:99999", "gateway:0", "gateway:-1", "gateway:http", "gateway:\u0663",
     "grpc://gateway:1", "https://gateway", "dns:///", ":1", "a:b:1", "[::1", "[]:1"],
)  # fmt: skip
def test_a_target_that_leads_nowhere_is_refused_by_name(target: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(repr(target))):
        resolve({}, target=target)


def test_a_wrong_value_names_its_variable_only_where_it_is_the_source() -> None:
    for variable, value in (("MLPSERVE_TARGET", "a:b"), ("MLPSERVE_TIMEOUT", "0")):
        with pytest.raises(SettingsError, match=f"^{variable}: "):
            resolve({variable: value})
    for argument in ({"target": "a:b"}, {"timeout": 0}):
        with pytest.raises(SettingsError) as caught:
            resolve({"MLPSERVE_TARGET": "c:1", "MLPSERVE_TIMEOUT": "3"}, **argument)
        assert "MLPSERVE" not in str(caught.value)


def test_a_timeout_of_numpys_is_a_float() -> None:
    single: Any = np.float32(5)
    assert type(resolve({}, timeout=single).timeout) is float


def test_a_certificate_in_another_form_is_refused_and_a_byte_order_mark_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ca.pem"
    pem = "-----BEGIN CERTIFICATE-----\n"
    path.write_bytes(pem.encode("utf-16"))
    with pytest.raises(SettingsError, match=r"ca\.pem.*BEGIN"):
        _channel.credentials(Tls(ca=path))
    path.write_bytes(pem.encode("utf-8-sig"))
    _channel.credentials(Tls(ca=path))


@pytest.mark.parametrize(
    ("environ", "arguments"),
    [
        ({}, {"target": []}),
        ({}, {"target": "http://gateway:1"}),
        ({}, {"timeout": 0}),
        ({}, {"timeout": float("nan")}),
        ({}, {"timeout": float("inf")}),
        ({"MLPSERVE_TIMEOUT": "soon"}, {}),
        ({"MLPSERVE_TLS": "maybe"}, {}),
        ({"MLPSERVE_TLS_CERT": "only-half.pem"}, {}),
        ({"MLPSERVE_TOKEN_FILE": "does-not-exist"}, {}),
        ({}, {"token": "two words", "target": "localhost:1"}),
        ({}, {"token": "line\n", "target": "localhost:1"}),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(
    environ: dict[str, str], arguments: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError):
        resolve(environ, **arguments)


@pytest.mark.parametrize("value", ["", "0", "no", "false", "False"])
def test_tls_stays_off_when_the_environment_says_so(value: str) -> None:
    assert resolve({"MLPSERVE_TLS": value}).tls is None


@pytest.mark.parametrize("value", ["1", "yes", "true", "TRUE"])
def test_tls_comes_from_the_environment(value: str) -> None:
    assert resolve({"MLPSERVE_TLS": value}).tls == Tls()
    assert resolve({"MLPSERVE_TLS_CA": "ca.pem"}).tls == Tls(ca="ca.pem")


@pytest.mark.parametrize("target", ["gateway:1", "10.0.0.1:1", "dns:///gateway:1"])
def test_a_token_never_leaves_the_machine_unencrypted(target: str) -> None:
    with pytest.raises(SettingsError, match="unencrypted"):
        resolve({}, target=target, token="secret")

    assert resolve({}, target=target, token="secret", tls=Tls()).token == "secret"


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/run/m.sock"])
def test_a_token_may_go_to_this_machine(target: str) -> None:
    assert resolve({}, target=target, token="secret").token == "secret"


def test_a_token_file_is_read_up_to_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("new\nold\n")

    assert resolve({"MLPSERVE_TOKEN_FILE": str(tmp_path / "tokens")}).token == "new"


def test_a_server_s_own_list_with_comments_gives_its_first_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"\xef\xbb\xbf# ours\r\n\r\nnew # since May\r\nold\r\n")
    assert resolve({"MLPSERVE_TOKEN_FILE": str(tmp_path / "tokens")}).token == "new"

    (tmp_path / "tokens").write_text("# nothing yet\n")
    with pytest.raises(SettingsError, match="empty token file"):
        resolve({"MLPSERVE_TOKEN_FILE": str(tmp_path / "tokens")})


def test_a_token_shows_in_no_repr_and_no_message() -> None:
    settings = resolve({}, target="localhost:1", token="secret")

    assert "secret" not in repr(settings)
    with Client("localhost:1", token="secret") as client:
        assert "secret" not in repr(client)
    with pytest.raises(SettingsError) as caught:
        resolve({}, target="localhost:1", token="sec ret")
    assert "sec ret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match=r"missing\.pem"):
        Client("localhost:1", tls=Tls(ca="missing.pem"))

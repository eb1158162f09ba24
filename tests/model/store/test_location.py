"""Where a store is: understood once, at the edge, and what is missing is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlpserve_model import Store, StoreError
from mlpserve_model.cli import main
from mlpserve_model.store.location import Bucket, parse_location


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("models", Path("models")),
        ("/srv/s3:/models", Path("/srv/s3:/models")),
        ("s3://bucket", Bucket("s3", "bucket")),
        ("s3://bucket/", Bucket("s3", "bucket")),
        ("s3://my.bucket-1/a/b_c/d=1.2/", Bucket("s3", "my.bucket-1", "a/b_c/d=1.2")),
        ("gs://bucket/models", Bucket("gs", "bucket", "models")),
        ("az://container/models", Bucket("az", "container", "models")),
    ],
)
def test_a_location_is_a_folder_or_a_place_in_an_object_store(
    text: str, location: Path | Bucket
) -> None:
    assert parse_location(text) == location
    assert str(parse_location(str(location))) == str(location)


@pytest.mark.parametrize(
    "text",
    [
        "s3://", "s3:///models", "s3://B", "s3://user:secret@bucket", "s3://bucket//models",
        "s3://bucket/../x", "s3://bucket/a b", "s3://bucket/a?b", "s3://bucket/%2e", "S3://bucket",
        "http://bucket/models", "file:///models", "s3a://bucket", "s3://bucket/a\n",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_with_what_is_expected(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError, match=r"s3://"):
        parse_location(text)
    with pytest.raises(SystemExit) as end:
        main(["list", "--store", text])
    assert end.value.code == 2
    assert "argument --store: " in capsys.readouterr().err


def test_an_object_store_has_no_folder() -> None:
    store = Store("s3://bucket/models", "tiny")
    with pytest.raises(StoreError, match="s3://bucket/models is not a folder"):
        store.path(1)


def test_clients_of_google_and_azure_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "somebody")
    for address in ("gs://bucket/models", "az://container/models"):
        assert str(Store(address, "tiny").root) == address


def test_what_the_environment_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreError, match=r"cannot use az://container: .*Account must be specified"):
        Store("az://container", "tiny")


def test_an_endpoint_that_is_not_encrypted_has_to_be_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    with pytest.raises(StoreError, match=r"http://minio:9000 is not encrypted: AWS_ALLOW_HTTP"):
        Store("s3://bucket", "tiny")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert Store("s3://bucket", "tiny")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("mlpserve_model.cli", "['list']"),
        ("mlpserve_server.cli", "['--workers', '1']"),
        ("mlpserve_trainer.cli", "['train']"),
    ],
)
def test_without_the_extra_each_command_says_which_one_to_install(
    program: str, arguments: str
) -> None:
    code = (
        f"import sys; sys.modules['obstore'] = None; from {program} import main\n"
        f"sys.exit(main([*{arguments}, '--store', 's3://bucket/models']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "s3://bucket/models needs the package obstore" in run.stderr
    assert "pip install '.[object-store]'" in run.stderr
    assert "Traceback" not in run.stderr

"""mlpserve_client.testing, as the tests of other projects use it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlpserve_client import Client, ConnectionFailedError
from mlpserve_client.testing import serve

TEST_OF_A_USER = """
    from mlpserve_client import Client

    def test_the_answer_has_a_name(mlpserve_server):
        with Client(mlpserve_server.target) as client:
            assert client.predict([[0] * 28] * 28).name in "0123456789"

    def test_the_server_is_the_same_for_every_test(mlpserve_server):
        with Client(mlpserve_server.target) as client:
            assert mlpserve_server.publish() == 2
            assert client.predict([[0] * 28] * 28, version=2).model.version == 2
"""


def test_a_server_runs_until_the_end_of_the_block() -> None:
    with serve(input_shape=(2, 2), class_names=("cat", "dog")) as server:
        with Client(server.target) as client:
            assert client.predict([[0, 255], [255, 0]]).name in ("cat", "dog")
        assert server.store.exists()

    assert not server.store.exists()
    with Client(server.target) as client, pytest.raises(ConnectionFailedError):
        client.health()


def test_another_version_takes_over() -> None:
    with serve() as server, Client(server.target) as client:
        assert server.publish() == 2
        while client.model().version == 1:
            pass

        assert client.predict([0] * 784).model.version == 2


def test_the_fixture_works_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mlpserve_client.testing"]\n')
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(TEST_OF_A_USER))

    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert "2 passed" in done.stdout, done.stdout


def test_without_the_server_extra_it_says_what_to_install(tmp_path: Path) -> None:
    # A package that cannot be imported stands in for one that is not installed.
    (tmp_path / "mlpserve_server").mkdir()
    (tmp_path / "mlpserve_server" / "__init__.py").write_text("raise ImportError('not there')")
    code = "from mlpserve_client.testing import serve\nwith serve(): pass"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stderr.rstrip().endswith("the extra `server`: pip install '.[server]'")

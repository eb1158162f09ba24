"""Tests on the engine, run where what they are to hold is broken: each must notice."""

from pathlib import Path

import pytest

from tests.support.containers import ROOT
from tests.support.twins import assert_fails

pytestmark = pytest.mark.timeout(1200)

LOOSE = """
services:
  server:
    cap_drop: !reset []
    read_only: false
"""
# A compose project of the files of the checkout and of one that loosens it.
LOOSENED = """
import os

os.environ["COMPOSE_FILE"] = "{files}"
"""
# Servers that stop at once, called without pauses, by long batches, and without the retries that
# hide it: whenever a server stops, calls are under way.
WITHOUT_DRAIN = """
from tests.support import containers

init = containers.Stack.__init__

def without_drain(self, servers=1, **environment):
    init(self, servers, MLPSERVE_DRAIN_SECONDS="0", MLPSERVE_GRACE_SECONDS="0", **environment)

containers.Stack.__init__ = without_drain
containers.LOAD = '''
from mlpserve_client import _calls, _channel
_channel._SERVICE_CONFIG["methodConfig"], _calls._BROKEN_RETRIES = [], 0
''' + containers.LOAD
for paced, not_so in (("time.sleep(0.004)", "pass"), ("map(int, sys.argv[1:])", "12, 8000")):
    assert paced in containers.LOAD
    containers.LOAD = containers.LOAD.replace(paced, not_so)
"""


@pytest.mark.compose
def test_containers_with_too_many_rights_are_noticed(engine: None, tmp_path: Path) -> None:
    loose = tmp_path / "loose.yml"
    loose.write_text(LOOSE)
    code = LOOSENED.format(files=f"{ROOT}/docker-compose.yml:{loose}")
    test = "test_compose.py::test_containers_have_no_rights_that_they_do_not_need"
    assert_fails(code, f"system/containers/{test}", "assert False is True", seconds=600)


@pytest.mark.swarm
def test_a_rolling_update_without_drain_is_noticed(engine: None) -> None:
    test = "test_swarm.py::test_a_rolling_update_and_a_rollback_under_load_fail_no_call"
    failed = r"\d+ calls, [1-9]\d* failed"
    assert_fails(WITHOUT_DRAIN, f"system/containers/{test}", failed, seconds=600)

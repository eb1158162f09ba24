"""Services of the compose and stack files have no right that they do not need."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.hardening import excess_rights

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "deploy/swarm/stack.yml", "deploy/swarm/models.yml")
LOOSER: dict[str, Any] = {
    "read_only": False, "cap_drop": [], "security_opt": [], "mem_limit": 0, "pids_limit": None,
    "privileged": True, "cap_add": ["NET_ADMIN"], "devices": ["/dev/kvm"], "pid": "host",
    "ipc": "host", "userns_mode": "host", "user": "0:0", "network_mode": "host",
}  # fmt: skip


def services(file: str) -> dict[str, Any]:
    """Return the services that a file describes whole, by name; it may change others."""
    found = yaml.safe_load((ROOT / file).read_text())["services"]
    return {name: service for name, service in found.items() if "image" in service}


@pytest.mark.parametrize("file", FILES)
def test_no_service_has_a_right_that_it_does_not_need(file: str) -> None:
    whole, in_swarm = services(file), "swarm" in file
    assert whole
    assert [n for n, each in whole.items() if excess_rights(each, in_swarm)] == []


@pytest.mark.parametrize("setting", LOOSER)
def test_a_right_too_many_is_noticed(setting: str) -> None:
    """The broken twins: a service with one setting changed."""
    server = services("docker-compose.yml")["server"]
    assert excess_rights(server | {setting: LOOSER[setting]}) == [setting]


@pytest.mark.parametrize("setting", ["read_only", "cap_drop", "deploy"])
def test_a_setting_that_is_gone_from_a_stack_is_noticed(setting: str) -> None:
    server = services("deploy/swarm/stack.yml")["server"]
    del server[setting]
    assert excess_rights(server, in_swarm=True) in ([setting], ["memory", "pids"])

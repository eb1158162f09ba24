"""What a service of a compose or stack file may do in its container beyond what it needs."""

from collections.abc import Mapping
from typing import Any

__all__ = ["excess_rights"]

_NEEDED = {"read_only": True, "cap_drop": ["ALL"]}
# Compose's own: a swarm ignores the first, and has limits elsewhere.
_NO_NEW_PRIVILEGES = {"security_opt": ["no-new-privileges:true"]}
_LIMITS = ("mem_limit", "pids_limit")
_SWARM_LIMITS = ("memory", "pids")
_NEVER = ("privileged", "cap_add", "devices", "pid", "ipc", "userns_mode")


def excess_rights(service: Mapping[str, Any], in_swarm: bool = False) -> list[str]:
    """Return the settings by which a service may do or use more than it needs."""
    needed = _NEEDED if in_swarm else _NEEDED | _NO_NEW_PRIVILEGES
    limits, of = (_SWARM_LIMITS, _limits(service)) if in_swarm else (_LIMITS, service)
    user = str(service.get("user", "10001"))  # the images', if the service names none
    return [
        *(name for name, value in needed.items() if service.get(name) != value),
        *(name for name in _NEVER if name in service),
        *(name for name in limits if not of.get(name)),
        *(["user"] if user.partition(":")[0] in ("0", "root") else []),
        *(["network_mode"] if service.get("network_mode") == "host" else []),
    ]


def _limits(service: Mapping[str, Any]) -> Mapping[str, Any]:
    limits: Mapping[str, Any] = service.get("deploy", {}).get("resources", {}).get("limits", {})
    return limits

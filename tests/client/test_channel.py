"""gRPC's form of targets."""

import pytest

from mlpserve_client import ConnectionFailedError, SettingsError
from mlpserve_client._channel import channel_target


@pytest.mark.parametrize(
    ("targets", "form"),
    [
        (["gateway:1"], "gateway:1"),
        (["dns:///gateway:1"], "dns:///gateway:1"),
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["10.0.0.1:1", "10.0.0.1:1"], "ipv4:10.0.0.1:1"),
        (["[fd00::1]:1", "10.0.0.2:2"], "ipv6:[fd00::1]:1,[::ffff:10.0.0.2]:2"),
        (["10.0.0.1:1", "nosuchhost.invalid:2"], "ipv4:10.0.0.1:1"),
        (["unix:/run/a", "unix:/run/b"], "unix:/run/a,/run/b"),
    ],
)
def test_targets_become_one_target_of_grpc(targets: list[str], form: str) -> None:
    assert channel_target(tuple(targets)) == form


def test_names_without_any_address_are_an_error() -> None:
    with pytest.raises(ConnectionFailedError, match=r"a\.invalid:1, b\.invalid:1"):
        channel_target(("a.invalid:1", "b.invalid:1"))


def test_sockets_and_hosts_do_not_mix() -> None:
    with pytest.raises(SettingsError, match="unix"):
        channel_target(("unix:/run/a", "gateway:1"))

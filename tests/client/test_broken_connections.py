"""A network that damages what it carries, which TLS notices: calls go on over other connections."""

import grpc
import numpy as np

from mlpserve_client import Client, Tls
from tests.support.authority import Authority
from tests.support.client import Connect, StartScripted
from tests.support.tcp_proxy import Network
from tests.support.waiting import eventually

BREAKS = 5
HANDSHAKE = 20  # chunks; more than a connection takes before it carries calls


def test_damaged_bytes_fail_no_call_while_another_way_is_whole(
    connect: Connect, scripted: StartScripted, authority: Authority
) -> None:
    cert, key = authority.issue()
    pair = (key.read_bytes(), cert.read_bytes())
    port = int(scripted(credentials=grpc.ssl_server_credentials([pair])).target.split(":")[1])
    with Network() as network:
        bad, good = network.way(port), network.way(port)
        doors = [bad.door(), good.door()]
        tls = Tls(ca=authority.ca, server_name="localhost")
        client = connect([door.address for door in doors], tls=tls)
        whole = bad.to_client
        for _ in range(BREAKS):
            carried, accepted = bad.carried, doors[0].accepted
            eventually(lambda: answers(client) and bad.carried > carried + HANDSHAKE)  # noqa: B023
            bad.to_client = damaged
            eventually(lambda: answers(client) and doors[0].accepted > accepted)  # noqa: B023
            bad.to_client = whole


def damaged(data: bytes) -> bytes:
    """Flip a bit of what authenticates a TLS record."""
    return data[:-1] + bytes([data[-1] ^ 1])


def answers(client: Client) -> bool:
    return client.predict(np.zeros(2, np.float32)).name == "yes"

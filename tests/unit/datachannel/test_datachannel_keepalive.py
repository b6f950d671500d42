"""Pings and silences, on virtual time."""

from __future__ import annotations

import pytest

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.errors import TunnelClosed
from tests.unit.datachannel.data_keys import ipv4, make_keys, make_pair

PACKET = ipv4(b"payload")
KEEPALIVE = {"ping": 10.0, "ping_restart": 60.0}


def test_no_keepalive_means_no_timer() -> None:
    client, _ = make_pair()
    assert client.next_timeout() is None
    assert client.handle_timeout(1e6) == []


def test_silence_outwards_sends_a_ping() -> None:
    client, server = make_pair(now=0.0, **KEEPALIVE)
    assert client.next_timeout() == 10.0
    assert client.handle_timeout(9.9) == []
    pings = client.handle_timeout(10.0)
    assert len(pings) == 1
    assert server.decrypt_burst(pings, 10.0) == []
    assert server.stats().pings_in == client.stats().pings_out == 1
    assert client.next_timeout() == 20.0
    assert client.handle_timeout(19.9) == []
    assert client.stats().packets_out == 0


def test_traffic_outwards_puts_the_ping_off() -> None:
    client, _ = make_pair(now=0.0, **KEEPALIVE)
    client.encrypt_burst([PACKET], 7.0)
    assert client.handle_timeout(10.0) == []
    assert client.next_timeout() == 17.0
    assert client.handle_timeout(17.0) != []


def test_traffic_inwards_does_not_put_the_ping_off() -> None:
    client, server = make_pair(now=0.0, **KEEPALIVE)
    client.decrypt_burst(server.encrypt_burst([PACKET], 7.0), 7.0)
    assert client.handle_timeout(10.0) != []


@pytest.mark.parametrize(("option", "restart"), [("ping_restart", True), ("ping_exit", False)])
def test_a_silent_peer_ends_the_tunnel(option: str, restart: bool) -> None:
    client, _ = make_pair(now=0.0, **{option: 60.0})
    assert client.next_timeout() == 60.0
    client.handle_timeout(59.9)
    with pytest.raises(TunnelClosed, match=option.replace("_", "-")) as caught:
        client.handle_timeout(60.0)
    assert caught.value.restart is restart


def test_sending_does_not_keep_a_silent_peer_alive() -> None:
    client, _ = make_pair(now=0.0, **KEEPALIVE)
    for now in range(1, 60):
        client.encrypt_burst([PACKET], float(now))
    with pytest.raises(TunnelClosed):
        client.handle_timeout(60.0)


@pytest.mark.parametrize("kind", ["packet", "ping"])
def test_any_authenticated_packet_counts_as_heard(kind: str) -> None:
    client, server = make_pair(now=0.0, **KEEPALIVE)
    burst = server.encrypt_burst([PACKET], 50.0) if kind == "packet" else server.handle_timeout(50.0)
    client.decrypt_burst(burst, 50.0)
    client.handle_timeout(109.9)
    with pytest.raises(TunnelClosed):
        client.handle_timeout(110.0)


def forgery(channel: DataChannel, server: DataChannel) -> list[bytes]:
    return [datagram[:-1] + bytes([datagram[-1] ^ 1]) for datagram in server.encrypt_burst([PACKET], 50.0)]


def replay(channel: DataChannel, server: DataChannel) -> list[bytes]:
    burst = server.encrypt_burst([PACKET], 0.0)
    channel.decrypt_burst(burst, 0.0)
    return burst


@pytest.mark.parametrize("attack", [forgery, replay])
def test_an_attacker_cannot_hide_that_the_peer_is_gone(attack: object) -> None:
    assert callable(attack)
    client, server = make_pair(now=0.0, **KEEPALIVE)
    client.decrypt_burst(attack(client, server), 50.0)
    with pytest.raises(TunnelClosed):
        client.handle_timeout(60.0)


def test_a_new_key_means_that_the_peer_is_there() -> None:
    client, _ = make_pair(now=1.0, **KEEPALIVE)
    client.install_key(make_keys(key_id=1, seed=2, **KEEPALIVE)[0], 50.0)
    client.handle_timeout(109.9)
    with pytest.raises(TunnelClosed):
        client.handle_timeout(110.0)


def test_a_new_key_brings_the_intervals() -> None:
    client, _ = make_pair(now=0.0, **KEEPALIVE)
    client.install_key(make_keys(key_id=1, seed=2, ping=5.0, transition_window=1e9)[0], 3.0)
    assert client.next_timeout() == 5.0
    client.handle_timeout(1000.0)


def test_an_unused_tunnel_ends_for_good() -> None:
    client, server = make_pair(now=0.0, ping=10.0, inactive=60.0)
    for now in (10.0, 20.0, 30.0, 40.0, 50.0):
        client.decrypt_burst(server.handle_timeout(now), now)
        assert client.handle_timeout(now), "a ping is no use of the tunnel"
    assert client.next_timeout() == 60.0
    with pytest.raises(TunnelClosed, match="inactive") as caught:
        client.handle_timeout(60.0)
    assert caught.value.restart is False


@pytest.mark.parametrize("direction", ["in", "out"])
def test_any_packet_is_a_use(direction: str) -> None:
    client, server = make_pair(now=0.0, inactive=60.0)
    if direction == "out":
        client.encrypt_burst([PACKET], 30.0)
    else:
        client.decrypt_burst(server.encrypt_burst([PACKET], 30.0), 30.0)
    client.handle_timeout(60.0)
    assert client.next_timeout() == 90.0
    with pytest.raises(TunnelClosed):
        client.handle_timeout(90.0)


def test_too_few_bytes_are_no_use() -> None:
    """Both directions are counted together, and what was counted is kept until it is enough."""
    client, server = make_pair(now=0.0, inactive=60.0, inactive_bytes=3 * len(PACKET))
    client.encrypt_burst([PACKET], 10.0)
    client.decrypt_burst(server.encrypt_burst([PACKET], 20.0), 20.0)
    assert client.next_timeout() == 60.0
    client.encrypt_burst([PACKET], 30.0)
    assert client.next_timeout() == 90.0
    client.encrypt_burst([PACKET], 80.0)
    with pytest.raises(TunnelClosed):
        client.handle_timeout(90.0)


def test_a_new_key_is_no_use_either() -> None:
    client, _ = make_pair(now=0.0, inactive=60.0)
    client.install_key(make_keys(key_id=1, inactive=60.0)[0], 30.0)
    with pytest.raises(TunnelClosed, match="inactive"):
        client.handle_timeout(60.0)

"""PUSH_UPDATE at the session: news of the tunnel, changed silences, and what ends it."""

from __future__ import annotations

import pytest
from tlssession_pair import PUSH, Pair, client_config, server_config

from minivpn_trio.errors import ConnectError, DropReason, TunnelClosed
from minivpn_trio.events import SessionState, Warned
from minivpn_trio.items import KeepaliveTimes
from minivpn_trio.tlssession.server import ServerPolicy


def updated(*options: str, pair: Pair | None = None) -> Pair:
    """A pair that is up, and was sent an update."""
    pair = pair or Pair().start()
    assert pair.tls_client.state is SessionState.GENERATED_KEYS
    assert pair.tls_server.push_update(options, pair.now)
    pair.pump()
    return pair


def test_a_live_tunnel_changes() -> None:
    pair = updated("tun-mtu 1400", "route 10.9.0.0 255.255.0.0", "-route-gateway")
    assert pair.client.error is None
    news = pair.client.ups[-1]
    assert len(pair.client.ups) == 2
    assert set(news.changed) >= {"mtu", "routes", "gateway"}
    assert "ipv4" not in news.changed
    assert (news.info.mtu, news.info.gateway) == (1400, None)
    assert (len(pair.client.keys), pair.tls_client.poll_keepalives()) == (1, [])


def test_an_update_that_changes_nothing_is_no_news() -> None:
    assert len(updated("topology subnet", "?frobnicate").client.ups) == 1


def test_long_updates_are_continued() -> None:
    pair = updated(*(f"route 10.9.{n}.0 255.255.255.0" for n in range(200)))
    assert len(pair.client.ups) == 2
    assert len(pair.client.ups[-1].info.routes) == 200


def test_keepalive_changes_for_this_key_and_the_next() -> None:
    pair = updated("keepalive 5 30")
    assert pair.tls_client.poll_keepalives() == [KeepaliveTimes(5.0, 30.0, 0.0)]
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert (pair.client.keys[-1].ping, pair.client.keys[-1].ping_restart) == (5.0, 30.0)
    assert len(pair.client.keys) == 2


@pytest.mark.parametrize("option", ["cipher AES-128-GCM", "auth-token secret", "-peer-id", "setenv A b"])
def test_what_a_live_tunnel_cannot_follow_ends_it_for_another(option: str) -> None:
    pair = updated(option)
    assert isinstance(pair.client.error, TunnelClosed)
    assert pair.client.error.restart
    assert "secret" not in str(pair.client.error)


def test_a_pull_filter_that_rejects_it() -> None:
    pair = updated("tun-mtu 1400", pair=Pair(client_config(pull_filters=(("reject", "tun-mtu"),))).start())
    assert isinstance(pair.client.error, TunnelClosed)


def test_warnings_are_new_ones_only() -> None:
    pair = Pair(policy=ServerPolicy(push=(*PUSH, "setenv A b"))).start()
    before = len(pair.client.events_of(Warned))
    updated("tun-mtu 1", "?setenv A b", pair=pair)
    fresh = pair.client.events_of(Warned)[before:]
    assert [("tun-mtu" in event.text, "cannot change" in event.text) for event in fresh] == [
        (True, False),
        (False, True),
    ]


def test_too_early_or_not_asked_for() -> None:
    pair = Pair(policy=ServerPolicy(push_unasked=False)).start()
    pair.tls_server.send_message("PUSH_UPDATE,tun-mtu 1400", pair.now)
    pair.pump()
    assert pair.tls_client.drops[DropReason.NOT_READY] == 1
    assert not isinstance(pair.client.error, ConnectError)
    config = client_config(pull=False, cipher="AES-256-GCM", data_ciphers=("AES-256-GCM",))
    alone = Pair(config, server_config(cipher="AES-256-GCM", data_ciphers=("AES-256-GCM",))).start()
    assert not alone.tls_server.push_update(["tun-mtu 1400"], alone.now)
    alone.tls_server.send_message("PUSH_UPDATE,tun-mtu 1400", alone.now)
    alone.pump()
    assert alone.tls_client.drops[DropReason.NOT_READY] == 1
    assert len(alone.client.ups) == 1


def test_a_token_is_not_kept_among_the_options() -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, auth_token="tok-en")).start()
    assert "tok-en" not in repr(vars(pair.tls_client._negotiation)["_pushed"])

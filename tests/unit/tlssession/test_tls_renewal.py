"""Keys renewed: by either end, by both at once, round the ids, and when it fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlssession_pair import PUSH, Pair, client_config, mirrored

from minivpn_trio.errors import DropReason, Stage, TunnelClosed
from minivpn_trio.events import Rekeyed, SessionState, Warned
from minivpn_trio.items import ExpectKey, OpenKey, RetireKey
from minivpn_trio.packet.ids import KeyID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.tlssession.peer_renewals import MAX_RENEWALS, RENEWAL_INTERVAL
from minivpn_trio.tlssession.server import ServerPolicy

SOFT = Opcode.CONTROL_SOFT_RESET_V1


def renewed(pair: Pair, *, by: str) -> None:
    session = pair.tls_client if by == "client" else pair.tls_server
    session.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert pair.client.error is pair.server.error is None


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("derivation", ["prf", "tls-ekm"])
@pytest.mark.parametrize("by", ["client", "server"])
def test_by_either_end(version: str, derivation: str, by: str) -> None:
    policy = ServerPolicy(push=PUSH, key_derivation=derivation)  # type: ignore[arg-type]
    pair = Pair(client_config(tls_version_max=version, reneg_sec=40.0), policy=policy).start()
    pair.advance(30.0)
    renewed(pair, by=by)
    assert [key.key_id for key in pair.client.keys] == [0, 1]
    assert all(mirrored(*both) for both in zip(pair.client.keys, pair.server.keys, strict=True))
    first, second = pair.client.keys
    assert first.send_cipher != second.send_cipher
    assert (second.cipher, second.peer_id, second.ping) == (first.cipher, first.peer_id, first.ping)
    # The old key sends for half of what it lived, at most.
    assert (first.send_after, second.send_after) == (0.0, pytest.approx(15.0))
    assert [(event.key_id, event.by) for event in pair.client.events_of(Rekeyed)] == [(1, by)]
    assert len(pair.client.ups) == 1
    assert pair.client.opened[1:] == pair.server.opened[1:] == [OpenKey(KeyID(1), SOFT)]
    assert pair.client.expected == {2}
    assert (pair.tls_client.rekeys, pair.tls_client.state) == (1, SessionState.GENERATED_KEYS)


def test_send_after_counts_from_the_reset() -> None:
    pair = Pair().start()
    pair.advance(200.0)
    pair.server.deaf = True
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    pair.advance(15.0)
    pair.server.deaf = False
    pair.tls_server.handle_soft_reset(KeyID(1), pair.now)
    pair.pump()
    # hand-window is 60 s, and 15 are gone at our end.
    assert pair.client.keys[1].send_after == pytest.approx(45.0)
    assert pair.server.keys[1].send_after == pytest.approx(60.0)


def test_both_at_once_are_one() -> None:
    pair = Pair().start()
    pair.tls_client.handle_rekey_wanted("ours", pair.now)
    pair.tls_server.handle_rekey_wanted("theirs", pair.now)
    pair.pump()
    assert pair.client.error is pair.server.error is None
    assert [key.key_id for key in pair.client.keys] == [0, 1]
    assert mirrored(pair.client.keys[1], pair.server.keys[1])
    assert pair.tls_client.rekeys == pair.tls_server.rekeys == 1


def test_one_at_a_time() -> None:
    pair = Pair().start()
    for _ in range(5):
        pair.tls_client.handle_rekey_wanted("test", pair.now)
    assert pair.tls_client.poll_outgoing() == [OpenKey(KeyID(1), SOFT)]


def test_unexpected_soft_resets() -> None:
    pair = Pair().start()
    for key_id in (0, 2, 7):
        pair.tls_client.handle_soft_reset(KeyID(key_id), pair.now)
    assert pair.tls_client.drops[DropReason.UNEXPECTED_OPCODE] == 3
    pair.tls_client.handle_soft_reset(KeyID(1), pair.now)
    pair.tls_client.handle_soft_reset(KeyID(1), pair.now)
    assert pair.tls_client.drops[DropReason.DUPLICATE] == 1
    assert sum(isinstance(item, OpenKey) for item in pair.tls_client.poll_outgoing()) == 1


@settings(max_examples=5)
@given(asking=st.lists(st.sampled_from(["client", "server"]), min_size=9, max_size=9))
def test_ids_go_round_without_zero(asking: list[str]) -> None:
    pair = Pair().start()
    for by in asking:
        renewed(pair, by=by)
    assert [key.key_id for key in pair.client.keys] == [0, 1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert all(mirrored(*both) for both in zip(pair.client.keys, pair.server.keys, strict=True))
    # Never more than the current key, its successor and its predecessor.
    assert pair.client.retired == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_peer_that_never_stops_renewing() -> None:
    """So many at once, then one at a time, and none is forgotten: it is not sent again."""
    pair = Pair().start()
    start = pair.now
    for _ in range(MAX_RENEWALS):
        renewed(pair, by="server")
    assert pair.tls_client.rekeys == MAX_RENEWALS
    for number in range(1, 4):
        pair.tls_server.handle_rekey_wanted("test", pair.now)
        pair.pump()
        assert pair.tls_client.rekeys == MAX_RENEWALS + number - 1
        pair.advance(RENEWAL_INTERVAL)
        assert pair.tls_client.rekeys == pair.tls_server.rekeys == MAX_RENEWALS + number
    assert pair.now == start + 3 * RENEWAL_INTERVAL
    pair.advance(30.0)
    assert pair.client.error is pair.server.error is None
    # Our own wishes are not limited, and answer one of the peer's that waits.
    for _ in range(MAX_RENEWALS):
        renewed(pair, by="server")
    pair.tls_server.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert pair.tls_client.rekeys == 2 * MAX_RENEWALS + 3
    renewed(pair, by="client")
    pair.advance(RENEWAL_INTERVAL)
    assert pair.tls_client.rekeys == pair.tls_server.rekeys == 2 * MAX_RENEWALS + 4
    assert mirrored(pair.client.keys[-1], pair.server.keys[-1])


def test_by_time() -> None:
    pair = Pair(client_config(reneg_sec=100.0)).start()
    pair.advance(99.9)
    assert len(pair.client.keys) == 1
    pair.advance(0.2)
    assert len(pair.client.keys) == 2
    assert pair.client.events_of(Rekeyed)[0].by == "client"
    pair.advance(100.0)
    assert len(pair.client.keys) == 3


def test_by_the_servers_time_and_never() -> None:
    pair = Pair(client_config(reneg_sec=0.0), policy=ServerPolicy(push=PUSH, reneg_sec=15.0)).start()
    pair.advance(50.0)
    assert [event.by for event in pair.client.events_of(Rekeyed)] == ["server"] * 3
    # Without a limit of ours the server's own pace says how long a new key is held back: it forgets the old one
    # after 15 s more.
    assert pair.client.keys[1].send_after == pytest.approx(7.5)
    never = Pair(client_config(reneg_sec=0.0)).start()
    assert never.tls_client.next_timeout() is None


def test_pushed_reneg_sec() -> None:
    pair = Pair(policy=ServerPolicy(push=(*PUSH, "reneg-sec 30"))).start()
    pair.advance(31.0)
    assert len(pair.client.keys) == 2


def test_old_key_is_retired_after_the_transition_window() -> None:
    pair = Pair(client_config(tran_window=120.0)).start()
    assert pair.client.keys[0].transition_window == 120.0
    renewed(pair, by="client")
    pair.advance(119.0)
    assert pair.client.retired == []
    pair.advance(2.0)
    assert pair.client.retired == [0]


def test_messages_over_the_old_key_still_count() -> None:
    pair = Pair().start()
    old = pair.tls_server._current
    assert old is not None
    renewed(pair, by="server")
    pair.tls_server._send_message(old, "RESTART")
    pair.tls_server._collect(old)
    pair.pump()
    assert isinstance(pair.client.error, TunnelClosed)


def test_renewal_that_hangs() -> None:
    config = client_config(hand_window=20.0, tran_window=200.0, reneg_sec=100.0)
    pair = Pair(config).start()
    pair.server.deaf = True
    pair.advance(121.0)
    # The new key is given up, the old one lives on.
    assert pair.client.error is None
    (warned,) = pair.client.events_of(Warned)
    assert warned.stage is Stage.REKEY
    assert pair.client.retired == [1]
    assert pair.client.expected == {1}
    pair.advance(178.0)
    assert pair.client.error is None
    pair.advance(2.0)
    assert isinstance(pair.client.error, TunnelClosed)
    assert pair.client.error.restart
    assert "could not be renewed" in str(pair.client.error)


def test_renewal_that_fails_and_is_tried_again_by_the_server() -> None:
    pair = Pair().start()
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.tls_client.poll_outgoing()
    pair.tls_client.handle_soft_reset(KeyID(1), pair.now)
    pair.tls_client.poll_outgoing()
    pair.tls_client.handle_tls_bytes(KeyID(1), b"this is not TLS", pair.now)
    items = pair.tls_client.poll_outgoing()
    assert items[-2:] == [RetireKey(KeyID(1)), ExpectKey(KeyID(1))]
    # No more of our own accord.
    pair.tls_client.handle_rekey_wanted("again", pair.now)
    assert pair.tls_client.poll_outgoing() == []
    pair.client.expected = {1}
    renewed(pair, by="server")
    assert pair.client.keys[-1].key_id == 1
    assert mirrored(pair.client.keys[-1], pair.server.keys[-1])
    pair.advance(3500.0)
    assert pair.client.error is None


def test_server_certificate_that_expires_during_the_session() -> None:
    pair = Pair().start()
    pair.unix_time += 11 * 86400
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert pair.client.error is None
    assert "expired" in pair.client.events_of(Warned)[0].text
    assert pair.tls_client.state is SessionState.GENERATED_KEYS

"""Dynamic tls-crypt in the session: who agrees to it, and that both ends export the same 256 bytes, once."""

from __future__ import annotations

import pytest
from tlssession_pair import PUSH, Pair, client_config

from minivpn_trio.events import Rekeyed
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.tlssession import peer_info as peer_info_module
from minivpn_trio.tlssession.keys import DYNAMIC_TLS_CRYPT_LABEL, EKM_LABEL
from minivpn_trio.tlssession.peer_info import CLIENT_FEATURES, ProtoFlag
from minivpn_trio.tlssession.server import ServerPolicy


def test_both_ends_have_the_same_key() -> None:
    pair = Pair().start()
    (ours,), (theirs,) = pair.client.renegotiation_keys, pair.server.renegotiation_keys
    assert ours.exported == theirs.exported
    assert len(ours.exported) == 256
    assert len(set(ours.exported)) > 64
    # It is no data key, and none of it is shown.
    assert DYNAMIC_TLS_CRYPT_LABEL != EKM_LABEL
    assert pair.client.keys[0].send_cipher not in ours.exported
    assert repr(ours) == "RenegotiationKey()"


def test_it_is_made_of_the_first_session_and_lasts() -> None:
    pair = Pair(client_config(reneg_sec=60.0)).start()
    pair.advance(200.0)
    assert len(pair.client.events_of(Rekeyed)) == 3
    assert len(pair.client.renegotiation_keys) == len(pair.server.renegotiation_keys) == 1


def test_it_is_there_before_any_soft_reset() -> None:
    pair = Pair().start()
    assert pair.client.renegotiation_keys
    assert [opened.opcode for opened in pair.client.opened] == [Opcode.CONTROL_HARD_RESET_CLIENT_V2]


def test_two_sessions_have_two_keys() -> None:
    keys = {Pair(seed=seed).start().client.renegotiation_keys[0].exported for seed in (1, 2)}
    assert len(keys) == 2


def test_a_server_that_does_not_want_it() -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, dynamic_tls_crypt=False)).start()
    assert pair.client.ups
    assert not pair.client.renegotiation_keys
    assert not pair.server.renegotiation_keys


def test_a_client_that_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without = CLIENT_FEATURES & ~ProtoFlag.DYN_TLS_CRYPT
    monkeypatch.setattr(peer_info_module.peer_info, "__defaults__", (without,))
    pair = Pair().start()
    assert pair.client.ups
    assert not pair.server.renegotiation_keys


@pytest.mark.parametrize(
    ("policy", "flags"),
    [
        ({}, "protocol-flags cc-exit tls-ekm dyn-tls-crypt"),
        ({"cc_exit": False}, "protocol-flags tls-ekm dyn-tls-crypt"),
        ({"cc_exit": False, "dynamic_tls_crypt": False}, "key-derivation tls-ekm"),
        ({"key_derivation": "prf"}, "protocol-flags cc-exit dyn-tls-crypt"),
        ({"key_derivation": "prf", "cc_exit": False}, "protocol-flags dyn-tls-crypt"),
    ],
)
def test_what_is_pushed(policy: dict[str, object], flags: str) -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, **policy)).start()  # type: ignore[arg-type]
    assert pair.client.ups
    dynamic = "dyn-tls-crypt" in flags
    server = pair.tls_server
    derivation = "tls-ekm" if "tls-ekm" in flags else "prf"
    (message,) = server._push_messages("AES-256-GCM", derivation, dynamic=dynamic)
    assert flags in message.split(",")
    assert bool(pair.client.renegotiation_keys) is dynamic

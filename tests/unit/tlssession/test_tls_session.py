"""Client and server sessions against each other: the way up, verdicts, messages, timers."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tlssession_pair import PUSH, Pair, client_config, credentials, mirrored, server_config
from tlssession_pki import CLIENT, OTHER_CA, UNIX_TIME, Authority

from minivpn_trio.errors import (
    AuthFailed,
    AuthFailedTemporarily,
    ConnectError,
    DropReason,
    HandshakeTimeout,
    MiniVPNError,
    Stage,
    TLSVerificationError,
    TunnelClosed,
)
from minivpn_trio.events import (
    AuthPending,
    KeysGenerated,
    ResetDone,
    ResetSent,
    ServerMessage,
    SessionState,
    TLSHandshakeDone,
    TLSHandshakeStarted,
    Warned,
)
from minivpn_trio.items import ExpectKey, OpenKey, TLSBytes
from minivpn_trio.packet.ids import KeyID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.tlssession.openssl import TLSEngine
from minivpn_trio.tlssession.server import ServerPolicy
from minivpn_trio.tlssession.session import TlsSession
from minivpn_trio.tracing import StateTraced


def up(pair: Pair) -> Pair:
    """Bring a pair up and see that it is."""
    pair.start()
    assert pair.client.error is None
    assert pair.server.error is None
    assert pair.tls_client.state is pair.tls_server.state is SessionState.GENERATED_KEYS
    return pair


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("derivation", ["prf", "tls-ekm"])
@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
def test_first_key(version: str, derivation: str, cipher: str) -> None:
    config = client_config(tls_version_max=version, data_ciphers=("AES-256-GCM", "AES-128-CBC"), auth="SHA256")
    policy = ServerPolicy(push=PUSH, key_derivation=derivation, data_ciphers=(cipher,), peer_id=7)  # type: ignore[arg-type]
    pair = up(Pair(config, server_config(auth="SHA256"), policy))
    (ours,), (theirs,) = pair.client.keys, pair.server.keys
    assert mirrored(ours, theirs)
    assert (ours.cipher, ours.auth, ours.peer_id, ours.send_after) == (cipher, "SHA256", 7, 0.0)
    assert (ours.ping, ours.ping_restart, ours.transition_window) == (10.0, 60.0, 3600.0)
    (news,) = pair.client.ups
    assert str(news.info.ipv4) == "10.8.0.2/24"
    assert (news.info.key_derivation, news.info.tls_version) == (derivation, f"TLSv{version}")
    assert pair.client.events_of(KeysGenerated)[0].derivation == derivation
    assert pair.client.expected == pair.server.expected == {1}


def test_states_and_events_in_order() -> None:
    pair = up(Pair())
    states = [record.stage.value for record in pair.tracer.records if isinstance(record, StateTraced)]
    # The order in which minivpn writes them down.
    assert states == ["INITIAL", "PRE_START", "START", "SENT_KEY", "GOT_KEY", "ACTIVE", "GENERATED_KEYS"]
    kinds = [type(event) for event in pair.client.events]
    assert kinds == [ResetSent, ResetDone, TLSHandshakeStarted, TLSHandshakeDone, KeysGenerated]


def test_hard_reset_by_kind_of_wrap() -> None:
    assert Pair().start().client.opened == [OpenKey(KeyID(0), Opcode.CONTROL_HARD_RESET_CLIENT_V2)]
    v2 = Pair(client_config(control_wrap="tls-crypt-v2")).start()
    assert v2.client.opened == [OpenKey(KeyID(0), Opcode.CONTROL_HARD_RESET_CLIENT_V3)]


def test_nothing_before_its_time() -> None:
    pair = Pair()
    client = pair.tls_client
    assert client.state is SessionState.UNDEF
    assert client.next_timeout() is None
    client.start(pair.now)
    assert client.poll_outgoing() == [OpenKey(KeyID(0), Opcode.CONTROL_HARD_RESET_CLIENT_V2)]
    client.handle_tls_bytes(KeyID(0), b"\x16\x03\x03", pair.now)
    client.handle_tls_bytes(KeyID(3), b"\x16\x03\x03", pair.now)
    client.handle_soft_reset(KeyID(1), pair.now)
    client.handle_rekey_wanted("bytes", pair.now)
    assert client.poll_outgoing() == []
    assert client.drops == {
        DropReason.NOT_READY: 1, DropReason.UNKNOWN_KEY: 1, DropReason.UNEXPECTED_OPCODE: 1,
    }  # fmt: skip
    client.handle_remote_bound(pair.now)
    first = client.poll_outgoing()
    assert [type(item) for item in first] == [TLSBytes]
    client.handle_remote_bound(pair.now)
    assert client.poll_outgoing() == []


def _cutter(sizes: list[int]) -> object:
    lengths = itertools.cycle(sizes)

    def cut(data: bytes) -> list[bytes]:
        pieces = []
        while data:
            size = next(lengths)
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    return cut


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 1500), min_size=1, max_size=12),
    version=st.sampled_from(["1.2", "1.3"]),
    seed=st.integers(0, 9),
)
def test_cut_anywhere(sizes: list[int], version: str, seed: int) -> None:
    cut = _cutter(sizes)
    pair = up(Pair(client_config(tls_version_max=version), cut=cut, seed=seed))  # type: ignore[arg-type]
    assert mirrored(pair.client.keys[0], pair.server.keys[0])


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_key_method_2_and_messages_in_many_records(sizes: list[int]) -> None:
    # The server writes in records of its own choosing, which says nothing about messages.
    pair = Pair(policy=ServerPolicy(push=PUSH * 3))
    write_all = _cutter(sizes)
    real = TLSEngine.write

    def write(engine: TLSEngine, plain: bytes) -> None:
        for piece in write_all(plain):  # type: ignore[operator]
            real(engine, piece)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TLSEngine, "write", write)
        pair.start()
    # A cut right after the options string makes the rest look like empty messages; harmless.
    assert pair.client.error is None
    assert mirrored(pair.client.keys[0], pair.server.keys[0])
    assert pair.client.ups


@settings(max_examples=40)
# Here is the version of a certificate: cryptography refuses it by an exception that is no ValueError.
@example(place=268, flip=1, version="1.2")
@given(place=st.integers(0, 12_000), flip=st.integers(1, 255), version=st.sampled_from(["1.2", "1.3"]))
def test_a_byte_that_changes_on_the_way(place: int, flip: int, version: str) -> None:
    passed = 0

    def corrupt(data: bytes) -> list[bytes]:
        nonlocal passed
        here, passed = place - passed, passed + len(data)
        if 0 <= here < len(data):
            data = data[:here] + bytes([data[here] ^ flip]) + data[here + 1 :]
        return [data]

    pair = Pair(client_config(tls_version_max=version), cut=corrupt).start().advance(100.0)
    # Either it did no harm or both ends end with an error of ours; no keys differ in silence.
    assert all(error is None or isinstance(error, MiniVPNError) for error in (pair.client.error, pair.server.error))
    for both in zip(pair.client.keys, pair.server.keys, strict=False):
        assert mirrored(*both)
    if place >= passed:
        assert pair.client.error is None


def test_push_in_several_messages() -> None:
    push = (*PUSH, *(f"route 10.{number}.0.0 255.255.0.0" for number in range(100)))
    pair = up(Pair(policy=ServerPolicy(push=push)))
    assert len(pair.client.ups[0].info.routes) == 100
    assert len(list(pair.tls_server._push_messages("AES-256-GCM", "prf"))) > 2


def test_push_that_must_be_asked_for() -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, push_unasked=False)).start()
    assert pair.tls_client.state is SessionState.ACTIVE
    assert pair.tls_client.next_timeout() == pair.now + 1.0
    pair.advance(0.99)
    assert not pair.client.ups
    pair.advance(0.01)
    assert pair.client.ups
    assert pair.tls_client.state is SessionState.GENERATED_KEYS


def test_push_requests_are_repeated_and_then_given_up() -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, push_unasked=False))
    pair.start()
    pair.server.deaf = True
    asked = []
    for _ in range(70):
        if pair.client.error is not None:
            break
        pair.advance(1.0)
        asked.append(len(pair.server.inbox))
    assert isinstance(pair.client.error, HandshakeTimeout)
    assert pair.client.error.stage is Stage.PUSH
    assert "PUSH_REPLY in 60 s" in str(pair.client.error)


def test_repeated_push_changes_nothing() -> None:
    pair = up(Pair())
    pair.tls_server.send_message("PUSH_REPLY,ifconfig 10.9.9.9 255.255.255.0,cipher AES-128-GCM", pair.now)
    pair.pump()
    assert len(pair.client.ups) == len(pair.client.keys) == 1
    assert pair.client.error is None


def test_no_pull() -> None:
    # Nobody pushes: the cipher is that of the server's options string.
    config = client_config(pull=False, cipher="AES-256-GCM", data_ciphers=("AES-256-GCM",))
    pair = Pair(config, server_config(cipher="AES-256-GCM", data_ciphers=("AES-256-GCM",))).start()
    assert pair.tls_client.state is SessionState.GENERATED_KEYS
    assert pair.client.keys[0].cipher == "AES-256-GCM"
    assert pair.tls_client.next_timeout() == pair.now + 3600.0


def test_cipher_that_was_not_offered() -> None:
    pair = Pair().start()
    pair = Pair(policy=ServerPolicy(push=(*PUSH, "cipher AES-192-GCM"))).start()
    assert pair.client.error is None  # the last one counts, and it is ours
    refused = Pair(client_config(data_ciphers=("AES-128-GCM",)), policy=ServerPolicy(data_ciphers=("AES-256-GCM",)))
    refused.start()
    assert isinstance(refused.client.error, AuthFailed)
    assert "cipher" in refused.client.error.reason


def test_server_sees_what_the_client_says() -> None:
    pair = up(Pair(client_config(credentials=credentials(), peer_info=(("UV_X", "1"),))))
    client = pair.tls_server.client
    assert client is not None
    assert (client.username, client.password) == ("alice", "secret")
    assert pair.tls_server.client_info["IV_PROTO"] == "8094"
    assert pair.tls_server.client_info["UV_X"] == "1"
    assert client.options.endswith("tls-client")


def test_fragment_at_one_end_only() -> None:
    pair = up(Pair(server=server_config(fragment=1300)))
    assert any("fragment" in warned.text for warned in pair.client.events_of(Warned))
    both = up(Pair(client_config(fragment=1300), server_config(fragment=1300)))
    assert not both.client.events_of(Warned)
    assert both.client.keys[0].fragment is not None


def test_warning_about_any_certificate_of_the_ca() -> None:
    pair = up(Pair(client_config(remote_cert_tls=False)))
    assert "remote-cert-tls" in pair.client.events_of(Warned)[0].text


# -- refusals


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_wrong_ca_and_the_peer_is_told(version: str) -> None:
    pair = Pair(client_config(ca=OTHER_CA.cert, tls_version_max=version)).start()
    assert isinstance(pair.client.error, TLSVerificationError)
    assert "CN=test CA" in str(pair.client.error)
    assert pair.client.error.stage is Stage.TLS_HANDSHAKE
    assert pair.tls_client.state is SessionState.ERROR
    # The alert was there to be polled after the error.
    assert isinstance(pair.server.error, TLSVerificationError)
    assert "unknown ca" in str(pair.server.error)
    assert pair.tls_client.next_timeout() is None


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_our_certificate_is_refused(version: str) -> None:
    mine = OTHER_CA.issue("client", eku=CLIENT)
    pair = Pair(client_config(cert=mine.cert, key=mine.key, tls_version_max=version)).start()
    assert isinstance(pair.client.error, TLSVerificationError)
    assert "unknown ca" in str(pair.client.error)


def test_expired_server() -> None:
    pair = Pair(unix_time=UNIX_TIME + 11 * 86400).start()
    assert isinstance(pair.client.error, TLSVerificationError)
    assert "expired" in str(pair.client.error)


@pytest.mark.parametrize(("answer", "reason"), [(False, ""), ("no such user", "no such user")])
def test_auth_failed(answer: bool | str, reason: str) -> None:
    seen: list[tuple[str, str]] = []

    def authenticate(username: str, password: str) -> bool | str:
        seen.append((username, password))
        return answer

    policy = ServerPolicy(push=PUSH, authenticate=authenticate)
    pair = Pair(client_config(credentials=credentials()), policy=policy).start()
    assert seen == [("alice", "secret")]
    error = pair.client.error
    assert isinstance(error, AuthFailed)
    assert (error.reason, error.stage) == (reason, Stage.PUSH)
    assert "secret" not in str(error)
    assert not pair.server.keys


def test_auth_failed_for_now() -> None:
    pair = Pair(policy=ServerPolicy(authenticate=lambda u, p: "TEMP[backoff 7,advance remote]:database")).start()
    error = pair.client.error
    assert isinstance(error, AuthFailedTemporarily)
    assert not isinstance(error, AuthFailed)
    assert (error.reason, error.backoff, error.advance) == ("database", 7.0, "remote")


def test_second_factor() -> None:
    pair = Pair(policy=ServerPolicy(authenticate=lambda u, p: "CRV1:R,E:U1RBVEU=:YWxpY2U=:Enter PIN")).start()
    assert isinstance(pair.client.error, AuthFailed)
    assert pair.client.error.reason == "Enter PIN"
    assert "second factor" in str(pair.client.error)
    assert "U1RB" not in str(pair.client.error)


def test_auth_failed_in_the_same_flight_as_the_alert() -> None:
    # What the server said before it left TLS is heard.
    pair = Pair(policy=ServerPolicy(push_unasked=False)).start()
    server = pair.tls_server
    server.refuse("sorry", pair.now)
    assert server._pending is not None
    engine = server._pending.engine
    assert engine is not None
    engine._connection.shutdown()
    server._collect(server._pending)
    data = b"".join(item.data for item in server.poll_outgoing() if isinstance(item, TLSBytes))
    with pytest.raises(AuthFailed, match="sorry"):
        pair.tls_client.handle_tls_bytes(KeyID(0), data, pair.now)


# -- waiting


@pytest.mark.parametrize(
    ("stage", "words"),
    [(Stage.RESET, "tls-auth"), (Stage.TLS_HANDSHAKE, "large packets"), (Stage.KEY_EXCHANGE, "log")],
)
def test_hand_window(stage: Stage, words: str) -> None:
    pair = Pair(client_config(hand_window=30.0))
    if stage is Stage.RESET:
        pair.tls_client.start(pair.now)
    elif stage is Stage.TLS_HANDSHAKE:
        pair.tls_client.start(pair.now)
        pair.tls_client.handle_remote_bound(pair.now)
    else:
        # The server's last flight of TLS comes through, its key exchange does not.
        pair.tls_server._on_key_method_2 = lambda key, now: None  # type: ignore[method-assign]
        pair.start()
        assert pair.tls_client.state is SessionState.SENT_KEY
    pair.advance(29.9)
    assert pair.client.error is None
    pair.advance(0.2)
    error = pair.client.error
    assert isinstance(error, HandshakeTimeout)
    assert error.stage is stage
    assert "30 s" in str(error)
    assert words in str(error.remedy)


def test_auth_pending_extends_the_deadline() -> None:
    pair = Pair(client_config(reneg_sec=600.0), policy=ServerPolicy(push=PUSH, pending=250.0)).start()
    assert [event.timeout for event in pair.client.events_of(AuthPending)] == [250.0]
    pair.advance(249.0)
    assert pair.client.error is None
    assert pair.tls_client.state is SessionState.ACTIVE
    pair.tls_server.admit(pair.now)
    pair.pump()
    assert pair.tls_client.state is SessionState.GENERATED_KEYS


@pytest.mark.parametrize(("reneg_sec", "patience"), [(600.0, 300.0), (0.0, 60.0), (60.0, 60.0)])
def test_patience_has_an_end(reneg_sec: float, patience: float) -> None:
    config = client_config(reneg_sec=reneg_sec)
    pair = Pair(config, policy=ServerPolicy(push=PUSH, pending=5000.0)).start()
    assert pair.client.events_of(AuthPending)[0].timeout == patience
    pair.advance(patience - 0.1)
    assert pair.client.error is None
    pair.advance(0.2)
    assert isinstance(pair.client.error, HandshakeTimeout)


def test_decision_that_nobody_takes() -> None:
    pair = Pair(policy=ServerPolicy(push=PUSH, pending=30.0)).start()
    pair.advance(31.0)
    assert isinstance(pair.client.error, AuthFailed)


# -- messages


def test_server_messages() -> None:
    pair = up(Pair())
    pair.tls_server.send_message("INFO,hello", pair.now)
    pair.tls_server.send_message("SOMETHING,new", pair.now)
    pair.pump()
    assert [event.text for event in pair.client.events_of(ServerMessage)] == ["hello", "SOMETHING,new"]
    assert pair.client.error is None


@pytest.mark.parametrize(
    ("text", "restart", "words"),
    [("RESTART,maintenance", True, "maintenance"), ("HALT,go away", False, "go away"), ("EXIT", True, "left")],
)
def test_server_ends_the_tunnel(text: str, restart: bool, words: str) -> None:
    pair = up(Pair())
    pair.tls_server.send_message(text, pair.now)
    pair.pump()
    assert isinstance(pair.client.error, TunnelClosed)
    assert pair.client.error.restart is restart
    assert words in str(pair.client.error)


def test_restart_before_there_is_a_tunnel() -> None:
    pair = Pair(policy=ServerPolicy(push_unasked=False)).start()
    pair.tls_server.send_message("RESTART", pair.now)
    pair.pump()
    assert isinstance(pair.client.error, ConnectError)


@pytest.mark.parametrize("cc_exit", [True, False])
def test_goodbye(cc_exit: bool) -> None:
    pair = up(Pair(policy=ServerPolicy(push=PUSH, cc_exit=cc_exit)))
    pair.tls_client.goodbye(pair.now)
    pair.pump()
    if cc_exit:
        assert isinstance(pair.server.error, TunnelClosed)
        assert "left" in str(pair.server.error)
    else:
        assert pair.server.error is None


def test_a_session_that_may_last_so_long() -> None:
    """From the push on, and a new key does not make it longer."""
    pair = up(Pair(client_config(session_timeout=100.0)))
    pair.advance(60.0)
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert pair.client.error is None
    pair.advance(39.9)
    assert pair.client.error is None
    pair.advance(0.2)
    assert isinstance(pair.client.error, TunnelClosed)
    assert "session-timeout" in str(pair.client.error)
    assert pair.client.error.restart is False


def test_a_server_that_says_nothing_is_given_up_after_connect_timeout() -> None:
    pair = Pair(client_config(connect_timeout=5.0, hand_window=60.0))
    pair.tls_client.start(0.0)
    assert pair.tls_client.next_timeout() == 5.0
    with pytest.raises(HandshakeTimeout) as caught:
        pair.tls_client.handle_timeout(5.0)
    assert caught.value.stage is Stage.RESET


def test_a_server_that_answered_has_the_hand_window() -> None:
    pair = Pair(client_config(connect_timeout=5.0, hand_window=60.0))
    pair.tls_client.start(0.0)
    pair.tls_client.handle_remote_bound(4.0)
    pair.tls_client.handle_timeout(59.9)
    with pytest.raises(HandshakeTimeout) as caught:
        pair.tls_client.handle_timeout(60.0)
    assert caught.value.stage is Stage.TLS_HANDSHAKE


def test_goodbye_too_early_is_silence() -> None:
    pair = Pair()
    pair.tls_client.goodbye(pair.now)
    assert pair.tls_client.poll_outgoing() == []


def test_server_breaks_tls() -> None:
    pair = up(Pair())
    garbage = random.Random(1).randbytes(100)
    with pytest.raises(TunnelClosed, match="control channel broke") as caught:
        pair.tls_client.handle_tls_bytes(KeyID(0), b"\x17\x03\x03\x00\x64" + garbage, pair.now)
    assert caught.value.restart


def test_auth_token_replaces_the_password() -> None:
    passwords: list[str] = []

    def authenticate(username: str, password: str) -> bool:
        passwords.append(password)
        return True

    policy = ServerPolicy(push=PUSH, authenticate=authenticate, auth_token="SESS_ID_1", renewed_auth_token="SESS_ID_2")
    pair = up(Pair(client_config(credentials=credentials()), policy=policy))
    for password in ("SESS_ID_1", "SESS_ID_2"):
        pair.tls_client.handle_rekey_wanted("test", pair.now)
        pair.pump()
        assert pair.tls_server.client is not None
        assert (pair.tls_server.client.username, pair.tls_server.client.password) == ("alice", password)
    assert passwords == ["secret"]
    assert pair.client.error is None


def test_auth_token_that_expired() -> None:
    answers = iter([True, "SESSION:expired"])
    policy = ServerPolicy(push=PUSH, authenticate=lambda u, p: next(answers))
    pair = up(Pair(client_config(credentials=credentials()), policy=policy))
    # A token that the server will not know.
    pair.tls_server.send_message("PUSH_REPLY,auth-token SESS_ID_X", pair.now)
    pair.pump()
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert isinstance(pair.client.error, TunnelClosed)
    assert pair.client.error.restart


def test_password_that_is_refused_later() -> None:
    answers = iter([True, "changed"])
    policy = ServerPolicy(push=PUSH, authenticate=lambda u, p: next(answers))
    pair = up(Pair(client_config(credentials=credentials()), policy=policy))
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    pair.pump()
    assert isinstance(pair.client.error, AuthFailed)
    assert pair.client.error.stage is Stage.REKEY


def test_secrets_are_not_shown() -> None:
    pair = up(Pair(client_config(credentials=credentials("alice", "hunter2"))))
    key = pair.client.keys[0]
    shown = repr(pair.client.events) + repr(pair.client.keys) + repr(pair.tls_client._current) + repr(pair.client.ups)
    for secret in (b"hunter2", b"alice", key.send_cipher, key.receive_hmac):
        assert repr(secret)[2:-1] not in shown
    current = pair.tls_client._current
    assert current is not None
    # What the keys were made of is gone.
    assert current.ours is not None
    assert current.theirs is not None
    assert current.ours.source.pre_master == current.theirs.source.random2 == b""
    assert current.ours.password == ""


def test_server_role_is_elsewhere() -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="ServerTlsSession"):
        TlsSession(
            role=Role.SERVER, config=client_config(), rng=random.Random(1).randbytes, now=0.0,
            local_session_id=lambda: pair.client_sid, remote_session_id=lambda: pair.server_sid,
        )  # fmt: skip


def test_intermediate_and_context_shared_by_sessions() -> None:
    middle = Authority("middle", parent=OTHER_CA)
    leaf = middle.issue("server")
    server = server_config(cert=leaf.cert, key=leaf.key, extra_certs=middle.cert)
    assert ExpectKey(KeyID(1)) not in up(Pair(client_config(ca=OTHER_CA.cert), server)).tls_client.poll_outgoing()

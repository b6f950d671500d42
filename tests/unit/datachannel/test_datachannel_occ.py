"""OCC: what the peer may ask on the data channel, and what it gets.

Layouts are those of openvpn's occ.c (commit 3de9260).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.occ import ANSWER_INTERVAL, MAX_LOAD, OCC_MAGIC, OccOp, OccResponder
from minivpn_trio.errors import DropReason
from tests.unit.datachannel.data_keys import ipv4, make_pair

OPTIONS = (
    "V4,dev-type tun,link-mtu 1549,tun-mtu 1500,proto UDPv4,auth [null-digest],keysize 256,key-method 2,tls-client"
)
FRAMES = [
    {},
    {"epoch": True},
    {"cipher": "AES-256-CBC"},
    {"cipher": "BF-CBC", "auth": "SHA1"},
    {"compression": "comp-lzo-no"},
    {"compression": "stub"},
    {"compression": "stub-v2"},
    {"fragment": 1800},
    {"peer_id": None, "compression": "stub", "cipher": "AES-128-CBC", "fragment": 1800},
]


def ask(op: OccOp, more: bytes = b"") -> bytes:
    return OCC_MAGIC + bytes([op]) + more


def load_request(size: int) -> bytes:
    return ask(OccOp.MTU_LOAD_REQUEST, size.to_bytes(2, "big"))


class Listener(OccResponder):
    """Writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def handle_untrusted(self, message: bytes, datagram_size: int) -> bool:
        self.heard.append(message)
        return False


def heard(client: DataChannel, server: DataChannel, questions: list[bytes], now: float = 0.0) -> list[bytes]:
    """What ``client`` answers when the server asks."""
    assert client.decrypt_burst(server.encrypt_burst(questions, now), now) == []
    server._occ = listener = Listener()
    assert server.decrypt_burst(client.handle_timeout(now), now) == []
    return listener.heard


class TestReply:
    def test_the_options_string_with_its_nul(self) -> None:
        client, server = make_pair(options=OPTIONS)
        assert heard(client, server, [ask(OccOp.REQUEST)]) == [ask(OccOp.REPLY, OPTIONS.encode() + b"\0")]

    def test_without_options_there_is_none(self) -> None:
        client, server = make_pair()
        assert heard(client, server, [ask(OccOp.REQUEST)]) == []
        assert client.next_timeout() is None

    @pytest.mark.parametrize("frame", FRAMES, ids=str)
    def test_whatever_is_around_it(self, frame: dict[str, object]) -> None:
        client, server = make_pair(options=OPTIONS, **frame)
        assert heard(client, server, [ask(OccOp.REQUEST)]) == [ask(OccOp.REPLY, OPTIONS.encode() + b"\0")]
        assert not client.drops
        assert not server.drops

    def test_an_answer_asks_for_nothing(self) -> None:
        """Or two of us would talk for ever."""
        client, server = make_pair(options=OPTIONS)
        client.decrypt_burst(server.encrypt_burst([ask(OccOp.REQUEST), load_request(900)], 0.0), 0.0)
        assert server.decrypt_burst(client.handle_timeout(0.0), 0.0) == []
        assert server.handle_timeout(0.0) == []
        assert server.next_timeout() is None


class TestMtuTest:
    @pytest.mark.parametrize("frame", FRAMES, ids=str)
    def test_a_load_is_as_long_as_asked(self, frame: dict[str, object]) -> None:
        client, server = make_pair(**frame)
        for number, size in enumerate((400, 701, 1300, 1541)):
            now = 10.0 * number
            client.decrypt_burst(server.encrypt_burst([load_request(size)], now), now)
            (wire,) = client.handle_timeout(now)
            # A block cipher cannot meet every size.
            assert size - 16 < len(wire) <= size
            if "CBC" not in str(frame.get("cipher")):
                assert len(wire) == size

    @pytest.mark.parametrize(("size", "longest"), [(0, 41), (30, 41), (65535, MAX_LOAD)])
    def test_absurd_sizes(self, size: int, longest: int) -> None:
        client, server = make_pair()
        client.decrypt_burst(server.encrypt_burst([load_request(size)], 0.0), 0.0)
        (wire,) = client.handle_timeout(0.0)
        assert len(wire) == longest

    @pytest.mark.parametrize("more", [b"", b"\x05"])
    def test_a_size_that_is_not_there(self, more: bytes) -> None:
        client, server = make_pair()
        assert heard(client, server, [ask(OccOp.MTU_LOAD_REQUEST, more)]) == []

    @pytest.mark.parametrize("frame", FRAMES[:-2], ids=str)
    def test_the_reply_says_what_went_through(self, frame: dict[str, object]) -> None:
        """The whole test, as the C client's mtu_load_test_sequence does it; here both ends are ours."""
        client, server = make_pair(**frame)
        now = 0.0
        sizes = {"in": 0, "out": 0}
        for size in (500, 900, 1400):
            now += 3.0
            client.decrypt_burst(server.encrypt_burst([load_request(size)], now), now)
            assert len(client.handle_timeout(now)) == 1
            sizes["out"] = size
            now += 3.0
            load = server.encrypt_burst([ask(OccOp.MTU_LOAD, bytes(size - 150))], now)
            sizes["in"] = len(load[0])
            assert client.decrypt_burst(load, now) == []
        longest = sizes["in"].to_bytes(2, "big") + sizes["out"].to_bytes(2, "big")
        reply = heard(client, server, [ask(OccOp.MTU_REQUEST)], now)
        assert reply == [ask(OccOp.MTU_REPLY, longest)]


class TestRate:
    def test_one_answer_a_kind_and_interval(self) -> None:
        client, server = make_pair(options=OPTIONS)
        flood = [ask(OccOp.REQUEST), load_request(1000), ask(OccOp.MTU_REQUEST)] * 20
        client.decrypt_burst(server.encrypt_burst(flood, 5.0), 5.0)
        assert len(client.handle_timeout(5.0)) == 3
        assert client.handle_timeout(5.0) == []
        client.decrypt_burst(server.encrypt_burst(flood, 5.1), 5.1)
        assert client.next_timeout() == 5.0 + ANSWER_INTERVAL
        assert client.handle_timeout(5.9) == []
        assert len(client.handle_timeout(6.0)) == 3

    def test_the_keeper_is_woken(self) -> None:
        client, server = make_pair(options=OPTIONS)
        woken: list[bool] = []
        client.on_wakeup = lambda: woken.append(True)
        client.decrypt_burst(server.encrypt_burst([ipv4(b"x")], 0.0), 0.0)
        assert not woken
        client.decrypt_burst(server.encrypt_burst([ask(OccOp.REQUEST)], 0.0), 0.0)
        assert woken
        timeout = client.next_timeout()
        assert timeout is not None
        assert timeout <= 0.0

    def test_answers_are_sent_with_a_ping_that_is_due(self) -> None:
        client, server = make_pair(options=OPTIONS, ping=10.0)
        client.decrypt_burst(server.encrypt_burst([ask(OccOp.REQUEST)], 20.0), 20.0)
        # The answer itself breaks the silence.
        assert len(client.handle_timeout(20.0)) == 1


def test_strangers_get_nothing() -> None:
    client, server = make_pair(options=OPTIONS)
    (wire,) = server.encrypt_burst([ask(OccOp.REQUEST)], 0.0)
    assert client.decrypt_burst([wire[:-1] + bytes([wire[-1] ^ 1])], 0.0) == []
    assert client.handle_timeout(0.0) == []
    assert client.drops == {DropReason.BAD_AUTHENTICATION: 1}


def test_a_replayed_question_is_not_answered_again() -> None:
    client, server = make_pair(options=OPTIONS)
    wires = server.encrypt_burst([ask(OccOp.REQUEST)], 0.0)
    client.decrypt_burst(wires, 0.0)
    assert len(client.handle_timeout(0.0)) == 1
    client.decrypt_burst(wires, 10.0)
    assert client.handle_timeout(10.0) == []


@given(tail=st.binary(max_size=40), size=st.integers(min_value=0, max_value=70_000))
def test_no_message_raises(tail: bytes, size: int) -> None:
    responder = OccResponder()
    responder.options = OPTIONS
    responder.handle_untrusted(OCC_MAGIC + tail, size)
    answers = responder.poll(0.0, lambda datagram: datagram - 30, bytes)
    assert len(answers) <= 1
    assert all(len(answer) <= MAX_LOAD for answer in answers)

"""Tunnelblick's disguises: somebody else's numbers, what holds for all packets, and a tunnel through them."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio import open_tun_dialer
from minivpn_trio.config.proxy import Scramble
from minivpn_trio.networkio.scramble import Scrambler
from minivpn_trio.networkio.scrambled import ScrambledTransport
from minivpn_trio.networkio.stream import StreamTransport
from minivpn_trio.networkio.transport import Transport
from minivpn_trio.networkio.udp import UDPTransport
from minivpn_trio.testing import VPNServer, open_vpn_server

MASK = b"f76dab30"
#: Partout (the tunnel library of Passepartout), Tests/.../ObfuscatorTests.swift: one packet, each step of
#: `scramble obfuscate f76dab30` on the way out, and what that makes of it. Each step is a method of its own here.
PLAIN = bytes.fromhex("832ae7598dfa0378bc19")
POSITIONED = bytes.fromhex("8228e45d88fc0470b513")
REVERSED = bytes.fromhex("8213b57004fc885de428")
POSITIONED_AGAIN = bytes.fromhex("8311b67401fa8f55ed22")
MASKED = bytes.fromhex("e52680106098bc658b15")

SCRAMBLES = [Scramble("xormask", MASK), Scramble("xorptrpos"), Scramble("reverse"), Scramble("obfuscate", MASK)]
EACH = pytest.mark.parametrize("scramble", SCRAMBLES, ids=lambda each: each.kind)


@pytest.mark.parametrize(
    ("scramble", "before", "after"),
    [
        (Scramble("xorptrpos"), PLAIN, POSITIONED),
        (Scramble("reverse"), POSITIONED, REVERSED),
        (Scramble("xorptrpos"), REVERSED, POSITIONED_AGAIN),
        (Scramble("xormask", MASK), POSITIONED_AGAIN, MASKED),
        (Scramble("obfuscate", MASK), PLAIN, MASKED),
    ],
    ids=["xorptrpos", "reverse", "xorptrpos-again", "xormask", "obfuscate"],
)
def test_known_answers(scramble: Scramble, before: bytes, after: bytes) -> None:
    assert Scrambler(scramble).scramble([before]) == [after]
    assert Scrambler(scramble).unscramble([after]) == [before]


@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"a", b"a"), (b"ab", b"ab"), (b"abcde", b"aedcb")])
def test_reverse_leaves_the_first_byte(before: bytes, after: bytes) -> None:
    assert Scrambler(Scramble("reverse")).scramble([before]) == [after]


def test_positions_count_from_one_and_wrap() -> None:
    """The patch xors with (i + 1) in a byte."""
    (out,) = Scrambler(Scramble("xorptrpos")).scramble([bytes(5000)])
    assert out == bytes((i + 1) & 0xFF for i in range(5000))


def test_the_mask_begins_anew_with_each_packet() -> None:
    out = Scrambler(Scramble("xormask", b"abc")).scramble([bytes(4), bytes(7000)])
    assert out == [b"abca", (b"abc" * 2334)[:7000]]


@pytest.mark.parametrize(
    ("kind", "mask"), [("xormask", b""), ("obfuscate", b""), ("reverse", b"x"), ("xorptrpos", b"x")]
)
def test_masks_where_they_belong(kind: str, mask: bytes) -> None:
    with pytest.raises(ValueError, match=kind):
        Scramble(kind, mask)  # type: ignore[arg-type]


def test_the_mask_does_not_show() -> None:
    assert "hunter2" not in repr(Scramble("obfuscate", b"hunter2"))


@EACH
@given(burst=st.lists(st.binary(max_size=3000), max_size=5))
def test_every_burst_comes_back(scramble: Scramble, burst: list[bytes]) -> None:
    scrambler = Scrambler(scramble)
    out = scrambler.scramble(burst)
    assert list(map(len, out)) == list(map(len, burst))
    assert scrambler.unscramble(out) == burst
    assert scrambler.scramble(scrambler.unscramble(burst)) == burst


async def test_the_length_prefix_stays_as_it_is() -> None:
    """In a stream only the packets are disguised (the patch works where the prefix is off already)."""
    near, far = trio.testing.memory_stream_pair()
    transport = ScrambledTransport(StreamTransport(near), Scrambler(Scramble("xormask", b"\xff")))
    assert isinstance(transport, Transport)
    assert transport.is_stream
    await transport.send([b"\x00\x01", b"\x02"])
    assert await far.receive_some() == b"\x00\x02\xff\xfe\x00\x01\xfd"


@EACH
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_a_tunnel_scrambled_at_both_ends(scramble: Scramble, proto: str) -> None:
    """The in-process server behind the same disguise, over real sockets of ours."""
    with trio.fail_after(20):
        async with open_vpn_server(proto=proto) as server, trio.open_nursery() as nursery:
            listener = await _scrambling_front(nursery, server, scramble, proto)
            config = server.client_config()
            remote = replace(config.remotes[0], port=listener, scramble=scramble)
            async with open_tun_dialer(replace(config, remotes=(remote,))) as dialer:
                assert await dialer.ping(server.address) < 5
                assert dialer.stats().control.drops == {}
            nursery.cancel_scope.cancel()


async def _scrambling_front(nursery: trio.Nursery, server: VPNServer, scramble: Scramble, proto: str) -> int:
    """A port whose packets reach ``server`` after the disguise came off."""
    def disguised(inner: Transport) -> Transport:
        return ScrambledTransport(inner, Scrambler(scramble))

    if proto == "tcp":

        async def serve(stream: trio.SocketStream) -> None:
            await server.serve_transport(disguised(StreamTransport(stream)))

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        return listener.socket.getsockname()[1]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    async def serve_udp() -> None:
        await trio.lowlevel.wait_readable(sock)
        _, client = sock.recvfrom(10, socket.MSG_PEEK)
        sock.connect(client)
        await server.serve_transport(disguised(UDPTransport(sock)))

    nursery.start_soon(serve_udp)
    return sock.getsockname()[1]

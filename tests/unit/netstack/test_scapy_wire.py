"""The slow path by examples; the properties are in tests/property/test_wire_oracle.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, SYN, Fragment, IcmpMessage, IpPayload, TcpSegment, UdpDatagram
from minivpn_trio.netstack.scapy_wire.headers import checksum, checksum_holds

A4, B4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1])
A6, B6 = bytes.fromhex("fd00" + "0" * 27 + "6"), bytes.fromhex("fd00" + "0" * 27 + "1")

#: RFC 1071, section 3: the example sums to ddf2, so its checksum is 220d.
RFC1071_EXAMPLE = bytes.fromhex("0001f203f4f5f6f7")


def words_sum(data: bytes) -> int:
    """The ones' complement sum, word by word as RFC 1071 says."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(protocol: int, body: bytes, *, options: bytes = b"", flags_and_offset: int = 0, ident: int = 7) -> bytes:
    """An IPv4 packet made without the code under test."""
    head = bytes((0x45 + len(options) // 4, 0)) + (20 + len(options) + len(body)).to_bytes(2, "big")
    head += ident.to_bytes(2, "big") + flags_and_offset.to_bytes(2, "big") + bytes((64, protocol))
    tail = A4 + B4 + options
    checksum = 0xFFFF - words_sum(head + b"\0\0" + tail)
    return head + checksum.to_bytes(2, "big") + tail + body


def ipv6(following: int, body: bytes) -> bytes:
    return bytes((0x60, 0, 0, 0)) + len(body).to_bytes(2, "big") + bytes((following, 64)) + A6 + B6 + body


def tcp(*, options: bytes = b"", flags: int = ACK, payload: bytes = b"", v6: bool = False) -> bytes:
    """A TCP segment, ports 1025 and 80, made without the code under test."""
    head = (1025).to_bytes(2, "big") + (80).to_bytes(2, "big") + (1).to_bytes(4, "big") + (2).to_bytes(4, "big")
    head += bytes(((20 + len(options)) // 4 << 4, flags)) + (500).to_bytes(2, "big")
    rest = b"\0\0" + options + payload
    length = len(head) + 2 + len(rest)
    pseudo = (A6 + B6 + length.to_bytes(4, "big") + bytes((0, 0, 0, 6))) if v6 else (
        A4 + B4 + bytes((0, 6)) + length.to_bytes(2, "big")
    )  # fmt: skip
    checksum = 0xFFFF - words_sum(pseudo + head + b"\0\0" + rest)
    return head + checksum.to_bytes(2, "big") + rest


def drop(packet: bytes) -> DropReason:
    with pytest.raises(ProtocolError) as caught:
        scapy_wire.parse_untrusted(packet)
    return caught.value.reason


def segment(packet: bytes) -> TcpSegment:
    parsed = scapy_wire.parse_untrusted(packet)
    assert isinstance(parsed, TcpSegment)
    return parsed


def test_the_checksum_of_the_rfc() -> None:
    assert words_sum(RFC1071_EXAMPLE) == 0xDDF2
    assert checksum(RFC1071_EXAMPLE) == 0x220D
    assert checksum_holds(RFC1071_EXAMPLE + bytes.fromhex("220d"))


def test_a_segment_made_by_hand() -> None:
    options = bytes.fromhex("0101080a0000000500000006")
    expected = TcpSegment(A4, B4, 1025, 80, 1, 2, ACK, 500, b"hello", timestamps=(5, 6))
    assert segment(ipv4(6, tcp(options=options, payload=b"hello"))) == expected


def test_padding_behind_the_datagram_is_cut_off() -> None:
    assert segment(ipv4(6, tcp(payload=b"hello")) + b"padding").payload == b"hello"
    assert segment(ipv6(6, tcp(payload=b"hello", v6=True)) + b"padding").payload == b"hello"


def test_ip_options_are_skipped() -> None:
    router_alert = bytes.fromhex("94040000")
    assert segment(ipv4(6, tcp(payload=b"hello"), options=router_alert)).payload == b"hello"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("020405b4", {"mss": 1460}),
        ("01030307", {"window_scale": 7}),
        ("04020101", {"sack_permitted": True}),
        ("020405b40402080a000000010000000001030307",
         {"mss": 1460, "sack_permitted": True, "timestamps": (1, 0), "window_scale": 7}),
        # Lengths that the kind does not have: the option is ignored, its neighbours are not.
        ("0304070001030308", {"window_scale": 8}),
        ("02030501020405b4", {"mss": 1460}),
        # A length that runs out of the header, and one too short to be: nothing behind it counts.
        ("020a05b4", {}),
        ("0201020405b40000", {}),
        ("00000000020405b4", {}),
        # SACK with half a block.
        ("050600000001", {}),
    ],
)  # fmt: skip
def test_options_of_a_syn(options: str, expected: dict[str, object]) -> None:
    raw = bytes.fromhex(options)
    raw = raw.ljust((len(raw) + 3) // 4 * 4, b"\0")
    got = segment(ipv4(6, tcp(options=raw, flags=SYN)))
    fields = {name: getattr(got, name) for name in ("mss", "window_scale", "timestamps")}
    seen = {name: value for name, value in fields.items() if value is not None}
    if got.sack_permitted:
        seen["sack_permitted"] = True
    assert seen == expected
    assert got.sack_blocks == ()


def test_options_of_a_handshake_count_only_in_a_handshake() -> None:
    got = segment(ipv4(6, tcp(options=bytes.fromhex("020405b4040200000103030700000000"), flags=ACK)))
    assert (got.mss, got.window_scale, got.sack_permitted) == (None, None, False)


def test_sack_blocks() -> None:
    options = bytes.fromhex("0101051200000001000000020000000300000004")
    assert segment(ipv4(6, tcp(options=options))).sack_blocks == ((1, 2), (3, 4))


def test_a_malformed_authentication_option_costs_nothing_but_itself() -> None:
    assert segment(ipv4(6, tcp(options=bytes.fromhex("1d020101"), payload=b"x"))).payload == b"x"


@pytest.mark.parametrize("position", range(20, 48))
def test_a_flipped_bit_fails_a_checksum_or_a_check(position: int) -> None:
    packet = bytearray(ipv4(6, tcp(payload=b"12345678")))
    packet[position] ^= 0x10
    assert drop(bytes(packet)) in {DropReason.BAD_CHECKSUM, DropReason.TOO_SHORT, DropReason.MALFORMED}


@pytest.mark.parametrize("position", range(20))
def test_a_flipped_bit_in_the_ip_header_is_noticed(position: int) -> None:
    packet = bytearray(ipv4(6, tcp(payload=b"12345678")))
    packet[position] ^= 0x01
    assert drop(bytes(packet)) in {DropReason.BAD_CHECKSUM, DropReason.TOO_SHORT, DropReason.MALFORMED}


@pytest.mark.parametrize("make", [lambda: ipv4(6, tcp(payload=b"12")), lambda: ipv6(6, tcp(payload=b"12", v6=True))])
def test_every_truncation_is_noticed(make: object) -> None:
    packet: bytes = make()  # type: ignore[operator]
    for size in range(len(packet)):
        assert drop(packet[:size]) is DropReason.TOO_SHORT


def test_fragments_are_handed_on_unparsed() -> None:
    packet = ipv4(17, bytes(range(16)), flags_and_offset=0x2000 | 185, ident=0xBEEF)
    assert scapy_wire.parse_untrusted(packet) == Fragment(A4, B4, 17, 0xBEEF, 1480, True, bytes(range(16)))


@pytest.mark.parametrize(("flags_and_offset", "body"), [(0x2000, b"1234567"), (0x0001, b""), (0x1FFF, bytes(16))])
def test_impossible_fragments(flags_and_offset: int, body: bytes) -> None:
    assert drop(ipv4(17, body, flags_and_offset=flags_and_offset)) is DropReason.FRAGMENT


def test_ipv6_extension_headers() -> None:
    body = tcp(payload=b"hello", v6=True)
    hop_by_hop = bytes((60, 0, 1, 4, 0, 0, 0, 0))
    destination = bytes((6, 0, 1, 4, 0, 0, 0, 0))
    assert segment(ipv6(0, hop_by_hop + destination + body)).payload == b"hello"
    atomic = bytes((6, 0, 0, 0, 0, 0, 0, 9))
    assert segment(ipv6(44, atomic + body)).payload == b"hello"
    first = bytes((17, 0, 0, 1, 0, 0, 0, 9))
    assert scapy_wire.parse_untrusted(ipv6(44, first + bytes(8))) == Fragment(A6, B6, 17, 9, 0, True, bytes(8))
    assert drop(ipv6(60, destination[:2] + b"")) is DropReason.TOO_SHORT
    assert drop(ipv6(60, bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 9 + body)) is DropReason.LIMIT
    assert drop(ipv6(43, bytes((6, 0, 0, 1, 0, 0, 0, 0)) + body)) is DropReason.MALFORMED


def test_too_many_options_are_refused() -> None:
    blocks = ((1, 2), (3, 4), (5, 6), (7, 8))
    with pytest.raises(ValueError, match="TCP options"):
        scapy_wire.build_tcp(TcpSegment(A4, B4, 1, 2, 3, 4, ACK, 5, timestamps=(1, 2), sack_blocks=blocks))


def test_a_udp_checksum_of_zero() -> None:
    """Means "none" over IPv4 (RFC 768), is forbidden over IPv6 (RFC 8200, 8.1), and is never sent."""
    body = bytes.fromhex("0001000200090000") + b"x"
    assert scapy_wire.parse_untrusted(ipv4(17, body)) == UdpDatagram(A4, B4, 1, 2, b"x")
    assert drop(ipv6(17, body)) is DropReason.BAD_CHECKSUM
    # The two octets that make the sum 0xFFFF, so that its complement is 0.
    probe = scapy_wire.build_udp(UdpDatagram(A4, B4, 1, 2, b"\0\0"))
    built = scapy_wire.build_udp(UdpDatagram(A4, B4, 1, 2, probe[26:28]))
    assert built[26:28] == b"\xff\xff"
    assert scapy_wire.parse_untrusted(built) == UdpDatagram(A4, B4, 1, 2, probe[26:28])


@pytest.mark.parametrize("message", [
    IcmpMessage(A4, B4, 8, 0, 0x12340001, b"ping"),
    IcmpMessage(A4, B4, 0, 0, 0x12340001, b"pong!"),
    IcmpMessage(A4, B4, 3, 4, 1300, bytes(28)),
    IcmpMessage(A4, B4, 13, 0, 5, b"odd"),
    IcmpMessage(A6, B6, 128, 0, 0x12340001, b"ping"),
    IcmpMessage(A6, B6, 2, 0, 1280, bytes(48)),
])  # fmt: skip
def test_icmp_there_and_back(message: IcmpMessage) -> None:
    built = scapy_wire.build_icmp(message)
    assert scapy_wire.parse_untrusted(built) == message
    assert drop(built[:-1] + bytes((built[-1] ^ 1,))) is DropReason.BAD_CHECKSUM


def test_protocols_that_nobody_speaks() -> None:
    assert drop(ipv4(47, bytes(20))) is DropReason.NO_SOCKET
    assert drop(ipv4(58, bytes(20))) is DropReason.NO_SOCKET
    assert drop(ipv6(1, bytes(20))) is DropReason.NO_SOCKET
    assert drop(b"") is DropReason.TOO_SHORT
    assert drop(bytes(40)) is DropReason.MALFORMED


def run_fresh(program: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("module", [
    "minivpn_trio", "minivpn_trio.dialer", "minivpn_trio.netstack.sockets", "minivpn_trio.netstack.resolver",
    "minivpn_trio.netstack.worker", "minivpn_trio.netstack.icmp", "minivpn_trio.netstack.scapy_wire",
])  # fmt: skip
def test_scapy_is_not_imported_before_it_is_needed(module: str) -> None:
    run_fresh(f"import sys, {module}; assert not [m for m in sys.modules if m.split('.')[0] == 'scapy']")


def test_importing_scapy_opens_no_socket_and_leaves_no_trace() -> None:
    """The look at the host's interfaces and routes costs 11 netlink sockets; and what was stubbed to avoid it
    must be there again."""
    run_fresh(
        """
import socket, sys, threading
class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("a socket was opened")
socket.socket = Refused
from minivpn_trio.netstack import scapy_wire
assert not scapy_wire.is_loaded()
threads = [threading.Thread(target=scapy_wire.preload) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert scapy_wire.is_loaded()
from minivpn_trio.netstack.packets import TcpSegment, SYN
for a, b in ((bytes(4), bytes((1, 2, 3, 4))), (bytes(16), bytes(range(16)))):
    packet = scapy_wire.build_tcp(TcpSegment(a, b, 1, 2, 3, 4, SYN, 5))
    assert scapy_wire.parse_untrusted(packet).seq == 3
from scapy.config import conf
from scapy.interfaces import NetworkInterfaceDict
assert conf.route_autoload and conf.route6_autoload
assert NetworkInterfaceDict.reload.__module__ == NetworkInterfaceDict.load_confiface.__module__ == "scapy.interfaces"
assert NetworkInterfaceDict.reload.__name__ == "reload"
"""
    )


def test_options_that_decide_about_their_packet() -> None:
    """RFC 8200, 4.2: who does not know a type skips it (00) or drops the packet. IPv4 source routes go too."""
    body = scapy_wire.build_udp(UdpDatagram(A6, B6, 1, 2, b"hello"))[40:]
    for kind, passes in ((0x05, True), (0x1E, True), (0x45, False), (0x85, False), (0xC2, False)):
        for header in (0, 60):
            options = bytes((17, 0, kind, 2, 0, 0, 0, 0))
            if passes:
                parsed = scapy_wire.parse_untrusted(ipv6(header, options + body))
                assert isinstance(parsed, UdpDatagram)
                assert parsed.payload == b"hello"
            else:
                assert drop(ipv6(header, options + body)) is DropReason.MALFORMED
    assert drop(ipv6(60, bytes((17, 0, 1, 9, 0, 0, 0, 0)) + body)) is DropReason.MALFORMED
    plain = scapy_wire.build_udp(UdpDatagram(A4, B4, 1, 2, b"hello"))
    for options, passes in (
        (bytes((7, 4, 4, 0)), True), (bytes((1, 1, 148, 4, 0, 0, 0, 0)), True), (bytes((131, 4, 4, 0)), False),
        (bytes((1, 137, 3, 4)), False), (bytes((7, 9, 4, 0)), False), (bytes((7, 1, 4, 0)), False),
        (bytes((0, 131, 3, 0)), True),
    ):  # fmt: skip
        size = 20 + len(options)
        head = bytes((0x40 | size // 4, 0)) + (len(plain) + len(options)).to_bytes(2, "big") + plain[4:10]
        checksum = 65535 - int.from_bytes(head + b"\0\0" + plain[12:20] + options, "big") % 65535
        packet = head + checksum.to_bytes(2, "big") + plain[12:20] + options + plain[20:]
        if passes:
            assert isinstance(scapy_wire.parse_untrusted(packet), UdpDatagram)
        else:
            assert drop(packet) is DropReason.MALFORMED


def test_extension_headers_behind_the_fragment_header() -> None:
    udp = scapy_wire.build_udp(UdpDatagram(A6, B6, 1, 2, b"hello"))[40:]
    padding = bytes((17, 0, 1, 4, 0, 0, 0, 0))
    parsed = scapy_wire.parse_transport_untrusted(IpPayload(A6, B6, 60, padding + udp))
    assert isinstance(parsed, UdpDatagram)
    assert parsed.payload == b"hello"
    nested = bytes((17, 0, 0, 1, 0, 0, 0, 9))
    to_fragment = bytes((44, 0, 1, 4, 0, 0, 0, 0))
    for protocol, payload in ((44, nested + udp), (0, padding + udp), (60, to_fragment + nested + udp)):
        with pytest.raises(ProtocolError):
            scapy_wire.parse_transport_untrusted(IpPayload(A6, B6, protocol, payload))

"""UDP ASSOCIATE and its datagrams, without I/O (RFC 1928, RFC 1929)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.credentials import Credentials
from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.networkio.socks5 import AssociateRefused, UDPAssociate, datagram_header, strip_header_untrusted

LOGIN = Credentials("me", "s\u00e9same")
RELAY = b"\x05\x00\x00\x01\xc0\x00\x02\x07\x12\x34"


def talk(dialogue: UDPAssociate, *answers: bytes) -> list[bytes]:
    """What we say before each answer, one byte at a time."""
    said = []
    for answer in answers:
        said.append(dialogue.take_output())
        for byte in answer:
            assert dialogue.wanted >= 1
            dialogue.handle_data_untrusted(bytes([byte]))
    return said


def test_without_login() -> None:
    dialogue = UDPAssociate(None)
    assert talk(dialogue, b"\x05\x00", RELAY) == [b"\x05\x01\x00", b"\x05\x03\x00\x01" + bytes(6)]
    assert dialogue.relay == ("192.0.2.7", 0x1234)
    assert dialogue.wanted == 0


def test_with_login() -> None:
    dialogue = UDPAssociate(LOGIN)
    said = talk(dialogue, b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x04" + bytes(15) + b"\x01\x00\x35")
    assert said == [b"\x05\x02\x00\x02", b"\x01\x02me\x07s\xc3\xa9same", b"\x05\x03\x00\x01" + bytes(6)]
    assert dialogue.relay == ("::1", 53)


@pytest.mark.parametrize(
    ("answers", "text", "credentials"),
    [
        ((b"\x05\xff",), "log in", True),
        ((b"\x05\x02", b"\x01\x01"), "refused the user name", True),
        ((b"\x05\x00", b"\x05\x07\x00\x01\x00"), "does not do UDP", False),
        ((b"\x05\x00", b"\x05\x63\x00\x01\x00"), "error 99", False),
    ],
)
def test_refusals(answers: tuple[bytes, ...], text: str, credentials: bool) -> None:
    with pytest.raises(AssociateRefused, match=text) as caught:
        talk(UDPAssociate(LOGIN), *answers)
    assert caught.value.credentials is credentials
    assert LOGIN.password not in str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [
        (b"HT",),
        (b"\x04\x00",),
        (b"\x05\x00", b"\x04\x00\x00\x01\x00"),
        (b"\x05\x00", b"\x05\x00\x00\x09\x00"),
        (b"\x05\x00", b"\x05\x00\x00\x03\x01"),
    ],
)
def test_what_is_no_socks(answers: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolError):
        talk(UDPAssociate(None), *answers)


def test_a_method_that_was_not_offered() -> None:
    with pytest.raises(AssociateRefused):
        talk(UDPAssociate(None), b"\x05\x02")


@given(stream=st.binary(max_size=60), login=st.booleans())
def test_any_bytes_end_well(stream: bytes, login: bool) -> None:
    dialogue = UDPAssociate(LOGIN if login else None)
    try:
        while stream and dialogue.wanted:
            size = dialogue.wanted
            dialogue.handle_data_untrusted(stream[:size])
            stream = stream[size:]
            dialogue.take_output()
    except (ProtocolError, AssociateRefused):
        return
    assert dialogue.relay is not None or dialogue.wanted > 0


@pytest.mark.parametrize(
    ("host", "header"),
    [
        ("192.0.2.1", "00000001c0000201 04aa"),
        ("2001:db8::1", "00000004 20010db8000000000000000000000001 04aa"),
        ("vpn.example", "000000030b76706e2e6578616d706c65 04aa"),
    ],
)
def test_datagram_headers(host: str, header: str) -> None:
    assert datagram_header(host, 1194) == bytes.fromhex(header)
    assert strip_header_untrusted(bytes.fromhex(header) + b"payload") == b"payload"


@pytest.mark.parametrize("host", ["x" * 256, "", "\u00fc" * 200])
def test_what_is_no_name(host: str) -> None:
    with pytest.raises(UnicodeError):
        datagram_header(host, 1)


@given(payload=st.binary(min_size=1, max_size=100), port=st.integers(0, 65535), host=st.ip_addresses().map(str))
def test_headers_come_off_again(payload: bytes, port: int, host: str) -> None:
    assert strip_header_untrusted(datagram_header(host, port) + payload) == payload


@given(datagram=st.binary(max_size=60))
def test_any_datagram_is_a_payload_or_a_drop(datagram: bytes) -> None:
    try:
        payload = strip_header_untrusted(datagram)
    except ProtocolError:
        return
    assert payload and datagram.endswith(payload)


def test_fragments_are_dropped() -> None:
    with pytest.raises(ProtocolError) as caught:
        strip_header_untrusted(b"\x00\x00\x01\x01" + bytes(6) + b"x")
    assert caught.value.reason is DropReason.FRAGMENT

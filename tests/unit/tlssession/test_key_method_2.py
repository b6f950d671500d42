"""Key method 2, the options string and the peer info."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlssession_pair import client_config

from minivpn_trio.config.model import TunnelConfig
from minivpn_trio.errors import ProtocolError
from minivpn_trio.packet.ids import Role
from minivpn_trio.tlssession.keymethod2 import (
    MAX_KEY_METHOD_2,
    KeyMethod2,
    decode_untrusted,
    encode,
    new_source,
)
from minivpn_trio.tlssession.options_string import cipher_in_options, fragment_in_options, options_string
from minivpn_trio.tlssession.peer_info import ProtoFlag, parse_peer_info, peer_info

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


def _rng(size: int) -> bytes:
    return bytes(range(size))


def _message(role: Role, **texts: str) -> KeyMethod2:
    return KeyMethod2(source=new_source(role, _rng), **({"options": "V4"} | texts))


@given(role=st.sampled_from(Role), options=_TEXT, username=_TEXT, password=_TEXT, info=_TEXT, rest=st.binary())
def test_round_trip(role: Role, options: str, username: str, password: str, info: str, rest: bytes) -> None:
    message = _message(role, options=options, username=username, password=password, peer_info=info)
    encoded = encode(message)
    assert decode_untrusted(encoded + rest, role) == (message, len(encoded))


@given(role=st.sampled_from(Role), data=st.data())
def test_what_is_cut_is_waited_for(role: Role, data: st.DataObject) -> None:
    encoded = encode(_message(role, options="V4,dev-type tun", username="u", password="p", peer_info="IV_VER=1\n"))
    end = data.draw(st.integers(0, len(encoded) - 1))
    found = decode_untrusted(encoded[:end], role)
    if role is Role.CLIENT:
        assert found is None
    elif found is not None:
        # A server's message may end after any of its strings.
        assert found[1] == end
        assert found[0].options == "V4,dev-type tun"


@given(data=st.binary(max_size=400), role=st.sampled_from(Role))
def test_garbage(data: bytes, role: Role) -> None:
    with contextlib.suppress(ProtocolError):
        decode_untrusted(data, role)


@given(tail=st.binary(max_size=400), role=st.sampled_from(Role))
def test_garbage_after_the_header(tail: bytes, role: Role) -> None:
    try:
        found = decode_untrusted(struct.pack("!IB", 0, 2) + bytes(64) + tail, role)
    except ProtocolError:
        return
    assert found is None or found[1] <= 69 + len(tail)


def test_layout() -> None:
    encoded = encode(_message(Role.CLIENT, options="V4", username="", password="pw"))
    assert encoded[:5] == b"\0\0\0\0\x02"
    assert encoded[5:53] == bytes(range(48))
    assert encoded[53:85] == encoded[85:117] == bytes(range(32))
    # A length counts the NUL; an empty string is only its length.
    assert encoded[117:] == b"\0\x03V4\0" + b"\0\0" + b"\0\x03pw\0" + b"\0\0"


def test_reserved_bits_of_the_method() -> None:
    encoded = bytearray(encode(_message(Role.SERVER)))
    encoded[4] |= 0xF0
    assert decode_untrusted(bytes(encoded), Role.SERVER) is not None
    encoded[4] = 1
    with pytest.raises(ProtocolError, match="key method 2"):
        decode_untrusted(bytes(encoded), Role.SERVER)


def test_old_server_without_the_last_strings_and_a_push_right_behind() -> None:
    head = encode(_message(Role.SERVER))[:-6]
    push = b"PUSH_REPLY,ping 10\0"
    found = decode_untrusted(head + push, Role.SERVER)
    assert found is not None
    assert found[1] == len(head)


def test_too_long_a_string() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        encode(_message(Role.CLIENT, password="x" * 2048))
    assert "xxx" not in str(caught.value)
    with pytest.raises(ProtocolError):
        decode_untrusted(struct.pack("!IB", 0, 2) + bytes(112) + b"\xff\xff" + bytes(100), Role.CLIENT)
    longest = encode(_message(Role.CLIENT, options="x" * 2047, username="x" * 2047, password="x" * 2047,
                              peer_info="x" * 2047))  # fmt: skip
    assert len(longest) == MAX_KEY_METHOD_2


def test_secrets_are_not_shown() -> None:
    text = repr(_message(Role.CLIENT, username="alice", password="hunter2", peer_info="UV_X=1"))
    assert "alice" not in text
    assert "hunter2" not in text
    assert "UV_X" not in text


# Local options strings that openvpn 2.6.14 (Debian) logs with --verb 7 for these settings.
_OPTIONS = [
    ({}, "link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128"),
    ({"auth": "SHA256"}, "link-mtu 1553,tun-mtu 1500,proto UDPv4,auth SHA256,keysize 128"),
    ({"cipher": "AES-256-CBC"}, "link-mtu 1557,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 256"),
    ({"cipher": "AES-256-CBC", "auth": "SHA512"}, "link-mtu 1601,tun-mtu 1500,proto UDPv4,auth SHA512,keysize 256"),
    (
        {"cipher": "AES-256-CBC", "data_ciphers": ("AES-256-CBC",)},
        "link-mtu 1557,tun-mtu 1500,proto UDPv4,cipher AES-256-CBC,auth SHA1,keysize 256",
    ),
    (
        {"cipher": "AES-256-GCM"},
        "link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-256-GCM,auth [null-digest],keysize 256",
    ),
    (
        {"cipher": "AES-128-GCM", "auth": "SHA256"},
        "link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-128-GCM,auth [null-digest],keysize 128",
    ),
    (
        {"cipher": "CHACHA20-POLY1305"},
        "link-mtu 1534,tun-mtu 1500,proto UDPv4,cipher CHACHA20-POLY1305,auth [null-digest],keysize 256",
    ),
    (
        {"cipher": "AES-128-CBC", "compression": "comp-lzo-no"},
        "link-mtu 1558,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128",
    ),
    ({"compression": "stub-v2"}, "link-mtu 1541,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128"),
    ({"compression": "stub"}, "link-mtu 1542,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128"),
    ({"compression": "comp-lzo-no"}, "link-mtu 1542,tun-mtu 1500,proto UDPv4,comp-lzo,auth SHA1,keysize 128"),
    ({"fragment": 1300}, "link-mtu 1545,tun-mtu 1500,proto UDPv4,mtu-dynamic,auth SHA1,keysize 128"),
    (
        {"fragment": 1300, "compression": "comp-lzo-no"},
        "link-mtu 1546,tun-mtu 1500,proto UDPv4,comp-lzo,mtu-dynamic,auth SHA1,keysize 128",
    ),
    (
        {"cipher": "AES-256-CBC", "fragment": 1400, "compression": "stub-v2", "auth": "SHA384"},
        "link-mtu 1589,tun-mtu 1500,proto UDPv4,comp-lzo,mtu-dynamic,auth SHA384,keysize 256",
    ),
    (
        {"data_ciphers_fallback": "AES-128-CBC"},
        "link-mtu 1557,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128",
    ),
    (
        {"cipher": "AES-256-CBC", "data_ciphers_fallback": "AES-128-CBC", "data_ciphers": ("AES-128-GCM",)},
        "link-mtu 1557,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128",
    ),
    (
        {"data_ciphers_fallback": "AES-256-GCM"},
        "link-mtu 1549,tun-mtu 1500,proto UDPv4,cipher AES-256-GCM,auth [null-digest],keysize 256",
    ),
    ({"tun_mtu": 1400}, "link-mtu 1441,tun-mtu 1400,proto UDPv4,auth SHA1,keysize 128"),
    ({"cipher": "AES-192-CBC"}, "link-mtu 1557,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 192"),
]


@pytest.mark.parametrize(("settings", "middle"), _OPTIONS)
def test_options_string(settings: dict[str, object], middle: str) -> None:
    config = client_config(**settings)
    assert options_string(config, Role.CLIENT, stream=False) == f"V4,dev-type tun,{middle},key-method 2,tls-client"


def test_options_string_over_tcp() -> None:
    # From the same server's log, with --proto tcp-client.
    assert options_string(client_config(), Role.CLIENT, stream=True) == (
        "V4,dev-type tun,link-mtu 1543,tun-mtu 1500,proto TCPv4_CLIENT,auth SHA1,keysize 128,key-method 2,tls-client"
    )
    gcm = client_config(cipher="AES-256-GCM")
    assert "link-mtu 1551," in options_string(gcm, Role.CLIENT, stream=True)
    server = options_string(gcm, Role.SERVER, stream=True)
    assert "proto TCPv4_SERVER" in server
    assert server.endswith("tls-server")


def test_what_is_read_from_options() -> None:
    options = "V4,dev-type tun,mtu-dynamic,cipher aes-128-cbc,auth SHA1"
    assert cipher_in_options(options) == "AES-128-CBC"
    assert fragment_in_options(options)
    assert cipher_in_options("V4,auth SHA1,ciphers x,cipher ") is None
    assert not fragment_in_options("V4,auth mtu-dynamic")


def test_peer_info() -> None:
    # A 2.6.14 server logs the same lines of a 2.6.14 client, with its IV_PROTO of 990. Of 2.7.0's sources, ssl.c,
    # push_peer_info: the same lines, and 8094 without DCO.
    lines = peer_info(client_config()).splitlines()
    assert lines == [
        "IV_VER=2.7.0",
        "IV_PLAT=linux",
        "IV_TCPNL=1",
        "IV_MTU=1600",
        "IV_NCP=2",
        "IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305",
        "IV_PROTO=8094",
        "IV_LZO_STUB=1",
        "IV_COMP_STUB=1",
        "IV_COMP_STUBv2=1",
    ]


def _info(config: TunnelConfig) -> dict[str, str]:
    return parse_peer_info(peer_info(config))


def test_peer_info_says_only_what_is_so() -> None:
    features = ProtoFlag(int(_info(client_config())["IV_PROTO"]))
    assert ProtoFlag.TLS_KEY_EXPORT in features
    assert ProtoFlag.DATA_EPOCH in features
    assert ProtoFlag.PUSH_UPDATE in features
    assert "IV_NCP" not in _info(client_config(data_ciphers=("AES-256-GCM",)))
    without_pull = ProtoFlag(int(_info(client_config(pull=False))["IV_PROTO"]))
    assert not without_pull & (ProtoFlag.REQUEST_PUSH | ProtoFlag.PUSH_UPDATE)
    assert _info(client_config(peer_info=(("UV_ID", "7"),)))["UV_ID"] == "7"

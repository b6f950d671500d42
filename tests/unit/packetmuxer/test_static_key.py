"""Key files: what is read, and what is refused without a word of what it holds."""

from __future__ import annotations

import pytest
from openvpn_packets import STATIC_KEY

from minivpn_trio.errors import ConfigError
from minivpn_trio.packetmuxer.static_key import StaticKey, parse_static_key

BEGIN = "-----BEGIN OpenVPN Static key V1-----\n"
END = "-----END OpenVPN Static key V1-----\n"
LINES = "".join(f"{STATIC_KEY[n : n + 16].hex()}\n" for n in range(0, 256, 16))


def test_the_four_slots() -> None:
    key = StaticKey(bytes(range(256)))
    assert key.cipher(0) == bytes(range(64))
    assert key.hmac(0) == bytes(range(64, 128))
    assert key.cipher(1) == bytes(range(128, 192))
    assert key.hmac(1) == bytes(range(192, 256))


@pytest.mark.parametrize(
    "text",
    [
        BEGIN + LINES + END,
        "#\n# 2048 bit OpenVPN static key\n#\n" + BEGIN + LINES + END + "\n",
        (BEGIN + LINES + END).replace("\n", "\r\n"),
        BEGIN + LINES.upper() + END,
        BEGIN + LINES.replace("\n", "") + "\n" + END.rstrip(),
        "<tls-auth>\n" + BEGIN + LINES + END + "</tls-auth>\n",
        "\n" + BEGIN + " " + LINES.replace("\n", " \n\t") + "\n" + END,
    ],
    ids=["plain", "comment", "crlf", "upper", "one-line", "inline-tags", "spaces"],
)
def test_key_files(text: str) -> None:
    assert parse_static_key(text.encode()).material == STATIC_KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        LINES,
        BEGIN + LINES,
        LINES + END,
        END + LINES + BEGIN,
        BEGIN + LINES[:-33] + END,
        BEGIN + LINES + "00\n" + END,
        BEGIN + LINES.replace("a", "g") + END,
        BEGIN + LINES[:-1] + "\x00\n" + END,
        BEGIN + END,
        BEGIN.replace("V1", "V2") + LINES + END,
    ],
)
def test_what_is_no_key_file(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_static_key(text.encode(), directive="tls-crypt")
    assert caught.value.directive == "tls-crypt"
    for line in LINES.splitlines():
        assert line not in str(caught.value)


def test_secrets_stay_out_of_repr() -> None:
    assert "37268ea8" not in repr(StaticKey(STATIC_KEY))
    assert repr(STATIC_KEY[:8])[2:-1] not in repr(StaticKey(STATIC_KEY))


def test_a_key_has_256_bytes() -> None:
    with pytest.raises(ValueError, match="256"):
        StaticKey(bytes(255))

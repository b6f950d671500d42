"""Directives about proxies, obfs4, scramble and binding, and the configuration they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.model import Credentials, Remote, TunnelConfig
from minivpn_trio.config.ovpn import Profile, load_config, parse_profile
from minivpn_trio.config.proxy import HTTPProxy, Obfs4Bridge, Scramble, SocksProxy
from minivpn_trio.config.report import describe
from minivpn_trio.errors import ConfigError

PROFILES = Path(__file__).parent / "profiles"
#: A client's without remote or protocol.
BASE = "client\ndev tun\nremote-cert-tls server\nca ca.crt\nauth-user-pass\n"
LINE = BASE.count("\n") + 1
#: Of an obfs4proxy 0.0.14 that was made for this test and is gone.
CERT = "NTzt7oEFhTEwfgJ+X/9WRBzSXVrnLTgZEMxFHHvMvFXhSGDNHSGXwxS1tqZNCfRbTgkLCg"


def read(text: str) -> Profile:
    return parse_profile((BASE + text).encode(), base=PROFILES)


def remotes_of(text: str) -> tuple[Remote, ...]:
    profile = read(text)
    assert profile.errors == ()
    return profile.partial.remotes


def errors_of(text: str) -> list[tuple[int | None, str | None, str]]:
    return [(each.line, each.directive, each.message) for each in read(text).errors]


TCP = "proto tcp\nremote vpn.example 443\n"


def proxy_of(text: str) -> object:
    (remote,) = remotes_of(TCP + text)
    return remote.proxy


FILE = Credentials("user", "pass")


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http-proxy p.example 8080", HTTPProxy("p.example", 8080)),
        ("http-proxy 192.0.2.1 3128 auto", HTTPProxy("192.0.2.1", 3128)),
        ("http-proxy p 1 auto-nct", HTTPProxy("p", 1, auth="digest")),
        ("http-proxy p 1 proxy.txt", HTTPProxy("p", 1, FILE, "basic")),
        ("http-proxy p 1 proxy.txt basic", HTTPProxy("p", 1, FILE, "basic")),
        ("http-proxy p 1 proxy.txt none", HTTPProxy("p", 1)),
        ("http-proxy p 1 stdin basic", HTTPProxy("p", 1, auth="basic")),
        ("http-proxy p 1\nhttp-proxy-user-pass proxy.txt", HTTPProxy("p", 1, FILE)),
        ("<http-proxy-user-pass>\na b\nc d\n</http-proxy-user-pass>\nhttp-proxy p 1 auto-nct",
         HTTPProxy("p", 1, Credentials("a b", "c d"), "digest")),
        ("http-proxy p 1\nhttp-proxy-option VERSION 1.0\nhttp-proxy-option AGENT \"A b/1\"",
         HTTPProxy("p", 1, user_agent="A b/1")),
        ("http-proxy p 1\nhttp-proxy-option CUSTOM-HEADER X-A b\nhttp-proxy-option EXT1 \"Host: front.example\"\n"
         "http-proxy-option CUSTOM-HEADER Host: x",
         HTTPProxy("p", 1, headers=(("X-A", "b"), ("Host", "front.example"), ("Host", "x")))),
        ("http-proxy p 1\nhttp-proxy-retry\nhttp-proxy-timeout 5", HTTPProxy("p", 1)),
        ("socks-proxy p", SocksProxy("p", 1080)),
        ("socks-proxy 2001:db8::1 9050", SocksProxy("2001:db8::1", 9050)),
        ("socks-proxy p 9050 proxy.txt\nsocks-proxy-retry", SocksProxy("p", 9050, FILE)),
        (f"proxy-obfs4 obfs4://192.0.2.1:443?cert={CERT}&iat-mode=1", Obfs4Bridge("192.0.2.1", 443, CERT, 1)),
        (f"proxy-obfs4 obfs4://[2001:db8::1]:443/?iat-mode=0&cert={CERT}==", Obfs4Bridge("2001:db8::1", 443, CERT)),
        (f"proxy-obfs4 obfs4://bridge.example:443?cert={CERT.replace('/', '%2F')}",
         Obfs4Bridge("bridge.example", 443, CERT)),
    ],
)  # fmt: skip
def test_proxies(text: str, proxy: object, tmp_path: Path) -> None:
    assert (PROFILES / "credentials.txt").exists()
    (tmp_path / "proxy.txt").write_text("user\r\npass\r\n")
    (tmp_path / "ca.crt").write_bytes((PROFILES / "ca.crt").read_bytes())
    profile = parse_profile((BASE + TCP + text).encode(), base=tmp_path)
    assert profile.errors == ()
    assert profile.partial.remotes == (Remote("vpn.example", 443, "tcp", proxy),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "directive", "message"),
    [
        ("http-proxy p", "http-proxy", "2 to 4 values"),
        ("http-proxy p 0", "http-proxy", "1 to 65535"),
        ("http-proxy p/q 1", "http-proxy", "host name"),
        ("http-proxy p 1 proxy.txt ntlm2", "http-proxy", "NTLM"),
        ("http-proxy p 1 proxy.txt digest", "http-proxy", "none or basic"),
        ("http-proxy-option VERSION 2", "http-proxy-option", "1.0 or 1.1"),
        ("http-proxy-option CUSTOM-HEADER Content-Length 5", "http-proxy-option", "change how"),
        ("http-proxy-option CUSTOM-HEADER \"X Y\" 5", "http-proxy-option", "name of a header"),
        ("http-proxy-option CUSTOM-HEADER nonsense", "http-proxy-option", "name and a value"),
        ("http-proxy-option AGENT \"a\tb\x01\"", "http-proxy-option", "value of a header"),
        ("http-proxy-option WHAT ever", "http-proxy-option", "VERSION, AGENT or"),
        ("http-proxy-option CUSTOM-HEADER X y\n" * 11, "http-proxy-option", "more than 10"),
        ("<http-proxy-user-pass>\n\n\n</http-proxy-user-pass>", "http-proxy-user-pass", "user name on the first"),
        ("socks-proxy p 70000", "socks-proxy", "1 to 65535"),
        ("proxy-obfs4 http://h:1?cert=x", "proxy-obfs4", "obfs4://HOST:PORT"),
        ("proxy-obfs4 obfs4://h?cert=x", "proxy-obfs4", "obfs4://HOST:PORT"),
        ("proxy-obfs4 obfs4://h:x", "proxy-obfs4", "no URL"),
        ("proxy-obfs4 obfs4://h:1?cert=abc", "proxy-obfs4", "cert"),
        ("proxy-obfs4 obfs4://h:1?iat-mode=0", "proxy-obfs4", "cert"),
        (f"proxy-obfs4 obfs4://h:1?cert={CERT}&iat-mode=3", "proxy-obfs4", "iat-mode"),
        ("socks-proxy p\nhttp-proxy p 1", "socks-proxy", "only one of"),
        (f"http-proxy p 1\nproxy-obfs4 obfs4://h:1?cert={CERT}", "http-proxy", "only one of"),
        ("scramble xormask", "scramble", "a mask is wanted"),
        ("scramble obfuscate", "scramble", "a mask is wanted"),
        ("scramble reverse x", "scramble", "nothing is wanted"),
        ("scramble foo bar", "scramble", "xormask MASK"),
        ("obfs4 x", "obfs4", "proxy-obfs4"),
    ],
)
def test_what_is_wrong_with_them(text: str, directive: str, message: str) -> None:
    found = errors_of(TCP + text)
    assert len(found) == 1
    line, name, said = found[0]
    assert (name, line is not None) == (directive, True)
    assert message in said


def test_errors_never_quote_a_secret() -> None:
    text = (
        "http-proxy-option CUSTOM-HEADER Cookie \"hunter2\x01\"\n"
        "proxy-obfs4 obfs4://h:1?cert=hunter2\nscramble hunter2 hunter2\n"
        "<http-proxy-user-pass>\nhunter2\x02\nhunter2\n</http-proxy-user-pass>\n"
    )
    profile = read(TCP + text)
    assert len(profile.errors) == 4
    assert "hunter2" not in repr(profile)


@pytest.mark.parametrize("text", [f"proxy-obfs4 obfs4://h:1?cert={CERT}", "http-proxy p 1"])
def test_these_carry_only_tcp(text: str) -> None:
    ((line, directive, message),) = errors_of(f"remote vpn.example 1194 udp\nremote vpn.example 1195 udp\n{text}\n")
    assert (line, directive) == (LINE + 2, text.split(maxsplit=1)[0])
    assert "only TCP" in message
    # proto-force leaves the ones that it can carry.
    (remote,) = remotes_of(f"remote h 1 udp\nremote h 2 tcp\nproto-force tcp\n{text}\n")
    assert remote.port == 2


def test_socks_carries_udp() -> None:
    (remote,) = remotes_of("remote h 1 udp\nsocks-proxy p\n")
    assert remote == Remote("h", 1, "udp", SocksProxy("p"))


def test_options_without_a_proxy_are_warned_of() -> None:
    profile = read(TCP + "http-proxy-option AGENT x\n<http-proxy-user-pass>\na\nb\n</http-proxy-user-pass>\n")
    assert profile.ok
    assert [(each.directive, "no effect" in each.message) for each in profile.warnings] == [("http-proxy-option", True)]
    assert profile.partial.remotes[0].proxy is None


def test_missing_and_asked_for() -> None:
    profile = read(TCP + "http-proxy p 1 nothing.txt\n")
    assert profile.needs == ("auth-user-pass", "file:nothing.txt")
    assert read(TCP + "http-proxy p 1 stdin\n").needs == ("auth-user-pass", "http-proxy")
    assert read(TCP + "socks-proxy p 1 stdin\n").needs == ("auth-user-pass", "socks-proxy")


def test_a_missing_file_is_no_open_proxy(tmp_path: Path) -> None:
    path = tmp_path / "x.ovpn"
    (tmp_path / "ca.crt").write_bytes((PROFILES / "ca.crt").read_bytes())
    path.write_text(BASE + TCP + "http-proxy p 1 nothing.txt\n")
    with pytest.raises(ConfigError, match=r"nothing\.txt"):
        load_config(path)


CONNECTIONS = """
<connection>
remote one 1 tcp
http-proxy own 1
</connection>
<connection>
remote two 2 udp
socks-proxy other 2
scramble reverse
</connection>
<connection>
remote three 3 tcp
</connection>
<connection>
remote four 4 tcp
scramble xorptrpos
</connection>
"""


@pytest.mark.parametrize("text", ["{general}\n{blocks}", "{blocks}\n{general}"], ids=["before", "after"])
def test_connections_and_the_profile_as_a_whole(text: str) -> None:
    """A block's own proxy counts; what it leaves open comes from outside, wherever that stands."""
    general = "socks-proxy general\nscramble xormask k\nhttp-proxy-option AGENT a"
    one, two, three, four = remotes_of(text.format(general=general, blocks=CONNECTIONS))
    mask = Scramble("xormask", b"k")
    assert one == Remote("one", 1, "tcp", HTTPProxy("own", 1, user_agent="a"), mask)
    assert two == Remote("two", 2, "udp", SocksProxy("other", 2), Scramble("reverse"))
    assert three == Remote("three", 3, "tcp", SocksProxy("general"), mask)
    assert four == Remote("four", 4, "tcp", SocksProxy("general"), Scramble("xorptrpos"))


@pytest.mark.parametrize(
    ("text", "scramble"),
    [
        ("xormask F", Scramble("xormask", b"F")),
        ("xorptrpos", Scramble("xorptrpos")),
        ("reverse", Scramble("reverse")),
        ("obfuscate \"a b\"", Scramble("obfuscate", b"a b")),
        ("lonely", Scramble("xormask", b"lonely")),
    ],
)
def test_scramble(text: str, scramble: Scramble) -> None:
    profile = read(f"remote h\nscramble {text}\n")
    assert profile.ok
    assert profile.partial.remotes == (Remote("h", 1194, "udp", None, scramble),)
    ((line, directive, message),) = [(each.line, each.directive, each.message) for each in profile.warnings]
    assert (line, directive) == (LINE + 1, "scramble")
    assert "protects nothing" in message


def test_the_report_names_them() -> None:
    described = describe(read(TCP + "http-proxy p 1\nscramble obfuscate hunter2\n"))
    assert described["remotes"] == [
        {"host": "vpn.example", "port": 443, "proto": "tcp", "proxy": "the HTTP proxy p:1", "scramble": "obfuscate"}
    ]
    assert "hunter2" not in repr(described)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", None, 0),
        ("nobind", None, 0),
        ("bind", None, 1194),
        ("bind\nport 443", None, 443),
        ("bind\nlport 5000", None, 5000),
        ("bind ipv6only\nlport 0", None, 0),
        ("lport 5000", None, 5000),
        ("lport 0\nnobind", None, 0),
        ("port 443", None, 0),
        ("local 192.0.2.7", "192.0.2.7", 0),
        ("local 192.0.2.7\nlport 7", "192.0.2.7", 7),
    ],
)
def test_binding(text: str, host: str | None, port: int) -> None:
    profile = read(f"remote h\n{text}\n")
    assert profile.errors == ()
    assert (profile.partial.local_host, profile.partial.local_port) == (host, port)


@pytest.mark.parametrize("text", ["bind", "lport 5", "local 192.0.2.7", "bind\nlport 0"])
def test_nobind_contradicts(text: str) -> None:
    """openvpn refuses all of these (options.c, options_postprocess_verify_ce)."""
    ((line, directive, message),) = errors_of(f"remote h\n{text}\nnobind\n")
    assert directive == "nobind"
    assert line == LINE + 2 + text.count("\n")
    assert text.split(maxsplit=1)[0] in message


@pytest.mark.parametrize(
    ("spelling", "proto"),
    [("udp", "udp"), ("udp4", "udp4"), ("udp6", "udp6"), ("tcp", "tcp"), ("tcp4", "tcp4"), ("tcp6", "tcp6"),
     ("tcp-client", "tcp"), ("tcp4-client", "tcp4"), ("tcp6-client", "tcp6")],
)  # fmt: skip
def test_every_spelling_of_a_protocol(spelling: str, proto: str) -> None:
    assert remotes_of(f"proto {spelling}\nport 7\nremote h\n") == (Remote("h", 7, proto),)  # type: ignore[arg-type]
    assert remotes_of(f"remote h 7 {spelling}\n") == (Remote("h", 7, proto),)  # type: ignore[arg-type]


def test_with_proxy() -> None:
    config = TunnelConfig(remotes=(Remote("a"), Remote("b", proxy=SocksProxy("x"))))
    assert {remote.proxy for remote in config.with_proxy(SocksProxy("y")).remotes} == {SocksProxy("y")}
    assert {remote.proxy for remote in config.with_proxy(None).remotes} == {None}


@given(url=st.one_of(st.text(max_size=60), st.text(max_size=40).map(lambda text: "obfs4://h:1?cert=" + text)))
def test_any_url_is_a_bridge_or_a_config_error(url: str) -> None:
    try:
        bridge = Obfs4Bridge.from_url(url)
    except ConfigError as error:
        raised = str(error)
    else:
        raised = ""
        assert 1 <= bridge.port <= 65535
    assert url not in raised or len(url) < 8


WORDS = st.sampled_from(
    ["http-proxy", "http-proxy-option", "socks-proxy", "proxy-obfs4", "scramble", "p", "1", "auto", "stdin",
     "CUSTOM-HEADER", "xormask", "reverse", "obfs4://h:1?cert=x", "\"\"", "bind", "nobind", "lport", "local"]
)  # fmt: skip


@given(lines=st.lists(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), max_size=8))
def test_any_lines_are_read(lines: list[str]) -> None:
    profile = read(TCP + "\n".join(lines) + "\n")
    for remote in profile.partial.remotes:
        assert remote.proxy is None or profile.errors or str(remote.proxy)

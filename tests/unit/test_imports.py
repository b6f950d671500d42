"""What gets imported, and when: the deterministic side of starting quickly.

Wall-clock time is for benchmarks; a module that sneaks into an import is seen here on any machine.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path

import pytest

import minivpn_trio

ROOT = Path(minivpn_trio.__file__).parent.parent
#: Slow to import, or noisy (scapy opens netlink sockets and reads caches), or not for everybody.
HEAVY = {
    "click", "dns", "h11", "httpcore", "httpx", "lz4", "lzallright", "numpy", "pytest", "python_socks", "rich",
    "scapy",
}  # fmt: skip

#: What only some tunnels need, or only some programs ask for. Each is imported where it is first used.
UNCOMMON = {
    # profiles
    "minivpn_trio.config.tls_crypt_v2_key", "minivpn_trio.networkio.obfs4", "minivpn_trio.networkio.proxies",
    "minivpn_trio.packetmuxer.tls_auth", "minivpn_trio.packetmuxer.tls_crypt_v2",
    # servers
    "minivpn_trio.datachannel.cbc", "minivpn_trio.tlssession.server",
    # what is watched
    "minivpn_trio.trace_sinks",
    # other people's
    "cryptography.hazmat.primitives.serialization", "difflib", "encodings.idna", "json",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """The modules that a new interpreter has imported after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(sorted(sys.modules))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("minivpn_trio")}


def test_the_package_alone_imports_nothing() -> None:
    modules = modules_after("import minivpn_trio")
    assert ours(modules) == {"minivpn_trio"}
    assert not modules & {"trio", "ssl", "cryptography", "OpenSSL", "dataclasses"}


def test_an_error_is_caught_for_little() -> None:
    modules = modules_after("from minivpn_trio import MiniVPNError")
    assert ours(modules) == {"minivpn_trio", "minivpn_trio.errors"}
    assert not modules & {"trio", "ssl", "cryptography"}


def test_a_dialer_needs_this_much_and_no_more() -> None:
    """All that a tunnel runs on is there before it is dialled, and nothing that only some tunnels need."""
    modules = modules_after("from minivpn_trio import open_tun_dialer")
    assert not modules & HEAVY
    assert not {name for name in ours(modules) if name.startswith(("minivpn_trio.testing", "minivpn_trio.cli."))}
    assert not modules & UNCOMMON
    assert {"trio", "OpenSSL.SSL", "minivpn_trio.tlssession.openssl.engine", "minivpn_trio.netstack.stack"} <= modules


def test_what_is_imported_late_is_there_when_it_is_wanted() -> None:
    """The names above are those of modules: one that was renamed would be missed by nobody."""
    for name in UNCOMMON:
        import_module(name)


def test_an_address_needs_no_codec_of_names() -> None:
    code = """
import socket, trio
from minivpn_trio.networkio.dial import is_numeric, lookup
assert is_numeric("192.0.2.1")
trio.run(lookup, "192.0.2.1", 1194, socket.SOCK_DGRAM)
"""
    assert "encodings.idna" not in modules_after(code)


def test_nothing_is_imported_between_the_first_packet_and_the_last_of_a_handshake() -> None:
    """A whole tunnel in one process: scapy comes after it is up, in a thread; nothing else comes at all."""
    modules_before, modules_after_ready = handshake_imports()
    late = modules_after_ready - modules_before
    assert not {name for name in late if name.partition(".")[0] in HEAVY | {"minivpn_trio", "cryptography"}}, late


def handshake_imports() -> tuple[set[str], set[str]]:
    code = """
import json, sys, trio
from minivpn_trio import open_client
from minivpn_trio.testing import open_vpn_server

async def main():
    async with open_vpn_server() as server:
        before = sorted(sys.modules)
        async with open_client(server.client_config()):
            print(json.dumps([before, sorted(sys.modules)]))

trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = json.loads(done.stdout)
    return set(before), set(after)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_command_answers_before_it_imports(arguments: list[str]) -> None:
    code = f"""
import sys
import typing
from minivpn_trio.cli import group
try:
    group.main({arguments!r}, prog_name="minivpn-trio")
except (SystemExit, RuntimeError):  # RuntimeError: not installed, so it has no version
    pass
"""
    modules = modules_after(code)
    assert ours(modules) <= {"minivpn_trio", "minivpn_trio.cli", "minivpn_trio.errors"}
    assert not modules & {"trio", "ssl", "cryptography", "rich"}


# the lazy public face


def type_checkers_see() -> dict[str, str]:
    """name -> module, as the imports under TYPE_CHECKING say."""
    tree = ast.parse(Path(minivpn_trio.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: f".{node.module}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_and_programs_see_the_same() -> None:
    assert type_checkers_see() == minivpn_trio._HOMES  # type: ignore[attr-defined]
    assert sorted(type_checkers_see()) == sorted(minivpn_trio.__all__)


@pytest.mark.parametrize("name", sorted(minivpn_trio.__all__))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(minivpn_trio, name) is not None
    assert name in dir(minivpn_trio)


def test_public_modules_are_attributes() -> None:
    code = "import minivpn_trio as m; m.events.Ready; m.tracing.Tracer; m.errors.MiniVPNError; m.testing"
    assert "minivpn_trio.testing" in modules_after(code)


def test_other_names_are_refused_as_ever() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_tunnel'"):
        minivpn_trio.open_tunnel  # type: ignore[attr-defined]  # noqa: B018


def test_type_hints_of_what_is_public_can_be_resolved() -> None:
    """At run time, too: for dependency injection, validation, documentation."""
    for name in minivpn_trio.__all__:
        thing = getattr(minivpn_trio, name)
        members = vars(thing).items() if isinstance(thing, type) else ()
        for each in (thing, *(member for key, member in members if not key.startswith("_"))):
            function = getattr(each, "fget", each)
            if callable(function):
                typing.get_type_hints(function)

"""Where the outer socket goes on this machine, and whom an error blames."""

from __future__ import annotations

import errno
import gc
import socket

import pytest
import trio

from minivpn_trio.config.credentials import Credentials
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.proxy import SocksProxy
from minivpn_trio.errors import Stage, TransportError
from minivpn_trio.networkio import dial as dial_module
from minivpn_trio.networkio.dial import LocalAddressError, dial, first_to_connect, in_words, resolve


async def failure_of(remote: Remote, config: TunnelConfig) -> TransportError:
    (endpoint, *_) = await resolve(remote)
    with pytest.raises(TransportError) as caught:
        await dial(endpoint, config)
    assert caught.value.stage is Stage.DIAL
    return caught.value


async def test_resolve_gives_every_address_once() -> None:
    endpoints = await resolve(Remote("localhost", 1194, "udp4"))
    assert [e.address for e in endpoints] == [("127.0.0.1", 1194)]
    (six,) = await resolve(Remote("::1", 1194, "tcp6"))
    assert six.family == socket.AF_INET6


async def test_a_name_without_address_says_so() -> None:
    with pytest.raises(TransportError, match=r"no address for nowhere\.invalid") as caught:
        await resolve(Remote("nowhere.invalid"))
    assert caught.value.stage is Stage.RESOLVE


async def test_dialling_a_closed_tcp_port_fails_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (endpoint,) = await resolve(Remote("127.0.0.1", port, "tcp"))
    with trio.fail_after(2), pytest.raises(TransportError, match="Connection refused") as caught:
        await dial(endpoint, TunnelConfig(remotes=()))
    assert caught.value.stage is Stage.DIAL
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("host", "config", "text"),
    [
        ("::1", {"local_host": "127.0.0.1"}, "local 127.0.0.1: Address family for hostname not supported"),
        ("127.0.0.1", {"local_host": "192.0.2.1"}, "local 192.0.2.1: Cannot assign requested address"),
        ("127.0.0.1", {"local_host": "\udcff"}, "this is no name"),
    ],
)
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_a_local_address_that_cannot_be(host: str, proto: str, config: dict[str, str], text: str) -> None:
    """The profile is to blame, and no server."""
    error = await failure_of(Remote(host, 1194, proto), TunnelConfig(remotes=(), **config))  # type: ignore[arg-type]
    assert text in str(error)
    assert "the server runs" not in str(error)
    assert "Unknown error" not in str(error)
    assert isinstance(error.__cause__, LocalAddressError)


async def test_a_local_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        error = await failure_of(Remote("127.0.0.1"), TunnelConfig(remotes=(), local_port=port))
    assert f"lport {port}: Address already in use" in str(error)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.EADDRINUSE


async def test_a_local_port_is_free_again_after_a_server_that_fell_silent() -> None:
    """It acknowledges nothing more, so a connection closed in order would wait for it, and keep the port."""
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        config = TunnelConfig(remotes=(), local_port=spare.getsockname()[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        remote = Remote("127.0.0.1", listener.getsockname()[1], "tcp")
        (endpoint,) = await resolve(remote)
        for _ in range(2):
            transport = await dial(endpoint, config)
            while transport.send_some([bytes(1400)] * 64) == 64:
                pass  # until its window is full, so that the end of the stream would have to wait, too
            await transport.aclose()


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_an_interface_that_is_not_there(proto: str) -> None:
    config = TunnelConfig(remotes=(), bind_device="nosuch0")
    error = await failure_of(Remote("127.0.0.1", 1194, proto), config)  # type: ignore[arg-type]
    # Old kernels ask for a privilege first.
    assert str(error.__cause__) in ("[Errno 19] bind-dev nosuch0: No such device",
                                    "[Errno 1] bind-dev nosuch0: Operation not permitted")  # fmt: skip


@pytest.mark.parametrize(("setting", "name"), [({"bind_device": "lo"}, "bind-dev lo"), ({"mark": 7}, "mark 7")])
async def test_what_the_system_cannot_do_is_no_reason_to_go_without(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, object], name: str
) -> None:
    for option in ("SO_MARK", "SO_BINDTODEVICE"):
        monkeypatch.delattr(socket, option, raising=False)
    error = await failure_of(Remote("127.0.0.1"), TunnelConfig(remotes=(), **setting))  # type: ignore[arg-type]
    assert f"{name}: this system has no such thing" in str(error)


async def test_a_local_address_behind_a_proxy() -> None:
    proxy = SocksProxy("127.0.0.1", 9, Credentials("name", "word"))
    error = await failure_of(
        Remote("vpn.example", 1194, "tcp", proxy), TunnelConfig(remotes=(), local_host="192.0.2.1")
    )
    assert "local 192.0.2.1: Cannot assign requested address" in str(error)
    assert "the proxy runs" not in str(error)


async def test_a_local_name_is_looked_up_without_stopping_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = dial_module.lookup

    async def lookup(*args: object) -> object:
        asked.append(args[0])
        return await real("127.0.0.1", *args[1:])  # type: ignore[arg-type]

    (endpoint,) = await resolve(Remote("127.0.0.1"))
    monkeypatch.setattr(dial_module, "lookup", lookup)
    transport = await dial(endpoint, TunnelConfig(remotes=(), local_host="here.example"))
    assert asked == ["here.example"]
    await transport.aclose()

    async def unknown(*args: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(dial_module, "lookup", unknown)
    with pytest.raises(TransportError, match=r"local here\.example: Name or service not known"):
        await dial(endpoint, TunnelConfig(remotes=(), local_host="here.example"))


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Error connecting to x"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("multiple of them"), "multiple of them"),
    ],
)
def test_errors_in_words(exc: OSError, text: str) -> None:
    assert in_words(exc) == text


# a proxy's addresses

HERE = ("127.0.0.1", 0)


class Listening:
    """A port of 127.0.0.1. ``silent``: it has no place for anybody, so the kernel drops what asks."""

    def __init__(self, *, silent: bool = False) -> None:
        self.socket = socket.socket()
        self.socket.bind(HERE)
        self.socket.listen(0 if silent else 5)
        self.address = self.socket.getsockname()
        self.filling = []
        for _ in range(4 if silent else 0):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.address)
            self.filling.append(filler)

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for each in (self.socket, *self.filling):
            each.close()


async def test_a_silent_address_costs_a_quarter_of_a_second() -> None:
    with Listening(silent=True) as silent, Listening() as good, trio.fail_after(5):
        began = trio.current_time()
        found = [(socket.AF_INET, silent.address), (socket.AF_INET, good.address)]
        with await first_to_connect(found, TunnelConfig(remotes=())) as connected:
            assert connected.getpeername() == good.address
        assert trio.current_time() - began < 2


async def test_addresses_that_refuse_cost_nothing_and_are_told_of() -> None:
    with Listening() as gone, Listening() as good:
        gone.socket.close()
        found = [(socket.AF_INET, gone.address)] * 3
        began = trio.current_time()
        with await first_to_connect([*found, (socket.AF_INET, good.address)], TunnelConfig(remotes=())) as connected:
            assert connected.getpeername() == good.address
        with pytest.raises(ConnectionRefusedError) as caught:
            await first_to_connect(found, TunnelConfig(remotes=()))
        assert trio.current_time() - began < 0.25
    assert caught.value.__notes__.count("tried before: 127.0.0.1: Connection refused") == 2


async def test_cancelled_while_addresses_are_tried() -> None:
    """An unclosed socket would be a ResourceWarning, which is an error here."""
    with Listening(silent=True) as silent:
        with trio.move_on_after(0.4) as scope:
            await first_to_connect([(socket.AF_INET, silent.address)] * 3, TunnelConfig(remotes=()))
        assert scope.cancelled_caught
    gc.collect()

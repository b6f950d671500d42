"""httpx, httpcore and their successors, unmodified, through a tunnel: HTTP/1.1, HTTP/2, pools, failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpcore
import httpcore2
import httpx
import httpx2
import pytest
import trio
from inside import NAME, Inside, inside

from minivpn_trio.integrations import httpcore as first
from minivpn_trio.integrations import httpcore2 as second
from minivpn_trio.netstack.sockets import TunSocket

GENERATIONS = [pytest.param(httpx, first, id="httpx"), pytest.param(httpx2, second, id="httpx2")]
CORES = [pytest.param(httpcore, first, id="httpcore"), pytest.param(httpcore2, second, id="httpcore2")]


class App:
    """An ASGI application that says who asked, and counts connections by their client's port."""

    def __init__(self) -> None:
        self.clients: list[tuple[str, int]] = []
        self.versions: set[str] = set()

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
        self.clients.append(scope["client"])
        self.versions.add(scope["http_version"])
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["raw_path"])]})
        await send({"type": "http.response.body", "body": body or bytes(100_000)})


async def use(module: Any, client: Any, scheme: str) -> list[Any]:
    """Requests one after the other and at the same time."""
    responses = [await client.get(f"{scheme}://{NAME}/{index}") for index in range(3)]
    responses.append(await client.post(f"{scheme}://{NAME}/post", content=b"x" * 300_000))
    assert responses[-1].content == b"x" * 300_000
    async with client.stream("GET", f"{scheme}://{NAME}/stream") as response:
        assert sum([len(chunk) async for chunk in response.aiter_bytes()]) == 100_000

    async def one() -> None:
        responses.append(await client.get(f"{scheme}://{NAME}/concurrent"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert all(response.status_code == 200 for response in responses)
    return responses


@pytest.mark.parametrize(("module", "integration"), GENERATIONS)
@pytest.mark.parametrize("ambient", [True, False], ids=["as_trio_sockets", "transport"])
async def test_http_1(module: Any, integration: Any, ambient: bool) -> None:
    async with inside() as world:
        app = App()
        await world.serve_asgi(app, 80)
        if ambient:
            with world.dialer.as_trio_sockets():
                async with module.AsyncClient() as client:
                    await use(module, client, "http")
        else:
            async with module.AsyncClient(transport=integration.TunnelTransport(world.dialer)) as client:
                await use(module, client, "http")
    assert app.versions == {"1.1"}
    assert len({port for _, port in app.clients[:5]}) == 1, "a connection was not used again"
    assert {host for host, _ in app.clients} == {str(world.dialer.tunnel_info.ipv4.ip)}  # type: ignore[union-attr]


@pytest.mark.parametrize(("module", "integration"), GENERATIONS)
@pytest.mark.parametrize("ambient", [True, False], ids=["as_trio_sockets", "transport"])
async def test_http_2(module: Any, integration: Any, ambient: bool) -> None:
    async with inside() as world:
        app = App()
        await world.serve_asgi(app, 443, "h2", "http/1.1")
        if ambient:
            with world.dialer.as_trio_sockets():
                async with module.AsyncClient(http2=True, verify=world.client_tls) as client:
                    responses = await use(module, client, "https")
        else:
            transport = integration.TunnelTransport(world.dialer, ssl_context=world.client_tls, http2=True)
            async with module.AsyncClient(transport=transport) as client:
                responses = await use(module, client, "https")
    assert {response.http_version for response in responses} == {"HTTP/2"}
    assert len(set(app.clients)) == 1, "all requests share one connection"


@pytest.mark.parametrize(("module", "integration"), GENERATIONS)
async def test_failures_are_the_librarys_own(module: Any, integration: Any) -> None:
    async with inside() as world, module.AsyncClient(transport=integration.TunnelTransport(world.dialer)) as client:
        with pytest.raises(module.ConnectError, match="Connection refused") as caught:
            await client.get(f"http://{world.address}:81/")
        assert str(caught.value.request.url) == f"http://{world.address}:81/"
        with pytest.raises(module.ConnectError, match="Name or service not known"):
            await client.get("http://nowhere.invalid/")
        with pytest.raises(module.ConnectTimeout):
            await client.get("http://10.8.0.200/", timeout=0.1)
        with pytest.raises(module.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await world.serve_asgi(App(), 443, "http/1.1")
            await client.get(f"https://{NAME}/")

        async def hang(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await trio.sleep_forever()

        world.nursery.start_soon(trio.serve_listeners, hang, [await world.listener(82)])
        with pytest.raises(module.ReadTimeout):
            await client.get(f"http://{world.address}:82/", timeout=module.Timeout(20, read=0.1))


@pytest.mark.parametrize(("core", "integration"), CORES)
async def test_a_pool_notices_what_the_server_closed(core: Any, integration: Any) -> None:
    """A kept connection that the server has closed is not used again: httpcore asks ``is_readable``."""

    async def twice(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await stream.aclose()

    async with inside() as world:
        world.nursery.start_soon(trio.serve_listeners, twice, [await world.listener(80)])
        async with core.AsyncConnectionPool(network_backend=integration.TunnelBackend(world.dialer)) as pool:
            for _ in range(3):
                response = await pool.request("GET", f"http://{NAME}/")
                assert response.content == b"ok"
                await trio.sleep(0.05)


@pytest.mark.parametrize(("core", "integration"), CORES)
async def test_the_backend_by_itself(core: Any, integration: Any) -> None:
    async with inside() as world:
        await world.serve_asgi(App(), 443, "h2", "http/1.1")
        backend = integration.TunnelBackend(world.dialer)
        own = str(world.dialer.tunnel_info.ipv4.ip)  # type: ignore[union-attr]
        stream = await backend.connect_tcp(NAME, 443, timeout=5, local_address=own, socket_options=[(1, 9, 1)])
        assert isinstance(stream.get_extra_info("socket"), TunSocket)
        assert stream.get_extra_info("server_addr") == (world.address, 443)
        assert stream.get_extra_info("client_addr")[0] == own
        assert stream.get_extra_info("socket").getsockopt(1, 9) == 1
        assert not stream.get_extra_info("is_readable")
        context = world.client_tls
        context.set_alpn_protocols(["h2"])
        secure = await stream.start_tls(context, NAME, timeout=5)
        assert secure.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        await secure.aclose()
        with pytest.raises(core.UnsupportedProtocol):
            await backend.connect_unix_socket("/nowhere")
        with pytest.raises(core.ConnectError, match="Connection refused"):
            await backend.connect_tcp(world.address, 81)
        with pytest.raises(core.ConnectTimeout):
            await backend.connect_tcp("10.8.0.200", 80, timeout=0.05)
        async with core.AsyncConnectionPool(network_backend=backend, ssl_context=world.client_tls, http2=True) as pool:
            for _ in range(3):
                response = await pool.request("GET", f"https://{NAME}/")
                assert response.extensions["http_version"] == b"HTTP/2"
            assert len(pool.connections) == 1


async def test_a_client_that_outlives_the_tunnel_fails(tmp_path: Any) -> None:
    async with httpx.AsyncClient() as client:
        async with inside() as world:
            assert isinstance(world, Inside)
            await world.serve_asgi(App(), 80)
            with world.dialer.as_trio_sockets():
                await client.get(f"http://{NAME}/")
            dialer = world.dialer
        with dialer.as_trio_sockets():
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://{NAME}/")
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://{NAME}/")

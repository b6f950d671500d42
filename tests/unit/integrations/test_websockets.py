"""trio-websocket, client and server, unmodified, through a tunnel."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from inside import NAME, inside
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketRequest,
    connect_websocket,
    open_websocket,
    open_websocket_url,
    serve_websocket,
    wrap_client_stream,
    wrap_server_stream,
)


async def echo(request: WebSocketRequest) -> None:
    """Send every message back, and say who asked when asked."""
    socket = await request.accept()
    with suppress(ConnectionClosed):
        while True:
            message = await socket.get_message()
            await socket.send_message(str(socket.remote.address) if message == "who am I?" else message)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_there_and_back(secure: bool) -> None:
    """Our client talks to a server at the far end, and a server of ours to a client there."""
    async with inside() as world:

        async def serve(stream: trio.SocketStream) -> None:
            tls = world.server_tls("http/1.1") if secure else None
            wrapped = stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            async with trio.open_nursery() as nursery:
                await echo(await wrap_server_stream(nursery, wrapped))

        world.nursery.start_soon(trio.serve_listeners, serve, [await world.listener(80)])
        url = f"{'wss' if secure else 'ws'}://{NAME}:80/chat"
        with world.dialer.as_trio_sockets():
            async with open_websocket_url(url, ssl_context=world.client_tls if secure else None) as socket:
                for message in ("text", b"binary", "é" * 50_000, bytes(200_000)):
                    await socket.send_message(message)
                    assert await socket.get_message() == message
                await socket.ping()
                await socket.send_message("who am I?")
                own = world.dialer.tunnel_info.ipv4
                assert own is not None
                assert await socket.get_message() == str(own.ip)


async def test_serving_inside() -> None:
    """serve_websocket listens in the tunnel; the far end, and we ourselves, connect to it."""
    async with inside() as world, trio.open_nursery() as nursery:
        with world.dialer.as_trio_sockets():
            server = await nursery.start(serve_websocket, echo, None, 8080, None)
            own = world.dialer.tunnel_info.ipv4
            assert own is not None
            for host in ("localhost", str(own.ip)):
                async with open_websocket(host, 8080, "/", use_ssl=False) as socket:
                    await socket.send_message("to myself")
                    assert await socket.get_message() == "to myself"
        assert {listener.socket.getsockname()[1] for listener in server._listeners} == {8080}
        far = world.server.host.socket()
        await far.connect((str(own.ip), 8080))
        stream = trio.SocketStream(far)
        socket = await wrap_client_stream(nursery, stream, str(own.ip), "/")
        await socket.send_message("from there")
        assert await socket.get_message() == "from there"
        await socket.aclose()
        nursery.cancel_scope.cancel()


async def test_failures() -> None:
    async with inside() as world, trio.open_nursery() as nursery:
        with world.dialer.as_trio_sockets():
            with pytest.raises(OSError, match="all attempts"):
                await connect_websocket(nursery, world.address, 81, "/", use_ssl=False)
            await world.serve_asgi(plain, 82)
            with pytest.raises(ConnectionRejected) as caught:
                async with open_websocket_url(f"ws://{NAME}:82/"):
                    pass
            assert caught.value.status_code == 500


async def plain(scope: dict[str, object], receive: object, send: object) -> None:
    """An application without websockets."""
    raise RuntimeError

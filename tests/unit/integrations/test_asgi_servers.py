"""hypercorn, and quart-trio on it, served inside a tunnel, at our end of it."""

from __future__ import annotations

import ssl
from typing import Any

import h11
import hypercorn
import pytest
import quart_trio
import trio
from inside import Inside, inside
from quart import request, websocket
from trio_websocket import wrap_client_stream

from minivpn_trio.integrations.hypercorn import serve


def make_app() -> tuple[Any, list[str]]:
    app = quart_trio.QuartTrio(__name__)
    life: list[str] = []

    @app.before_serving
    async def startup() -> None:
        life.append("startup")

    @app.after_serving
    async def shutdown() -> None:
        life.append("shutdown")

    @app.route("/")
    async def index() -> str:
        return f"{request.scheme} {request.remote_addr} {request.http_version}"

    @app.route("/slow")
    async def slow() -> str:
        await trio.sleep(0.2)
        return "done"

    @app.websocket("/chat")
    async def chat() -> None:
        while True:
            await websocket.send((await websocket.receive()) * 2)

    return app, life


async def fetch(world: Inside, path: str, port: int, tls: ssl.SSLContext | None = None) -> bytes:
    """From the far end."""
    own = world.dialer.tunnel_info.ipv4
    assert own is not None
    socket = world.server.host.socket()
    await socket.connect((str(own.ip), port))
    stream: Any = trio.SocketStream(socket)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_hostname="web.internal", https_compatible=True)
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(method="GET", target=path, headers=[("Host", "web.internal")])
        await stream.send_all(connection.send(request))
        connection.send(h11.EndOfMessage())
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Data):
                body += event.data
        return body


async def test_an_application_inside() -> None:
    async with inside() as world, trio.open_nursery() as nursery:
        app, life = make_app()
        stop = trio.Event()
        with world.dialer.as_trio_sockets():
            listeners: list[Any] = list(await trio.open_tcp_listeners(80))
            secure = await trio.open_tcp_listeners(443)
        listeners += [trio.SSLListener(each, world.server_tls("http/1.1"), https_compatible=True) for each in secure]
        config = hypercorn.Config()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await serve(app, config, listeners, shutdown_trigger=stop.wait, task_status=task_status)

        await nursery.start(run)
        assert life == ["startup"]
        peer = world.address.encode()
        assert (await fetch(world, "/", 80)).endswith(b"http " + peer + b" 1.1")
        assert (await fetch(world, "/", 443, world.client_tls)).endswith(b"https " + peer + b" 1.1")

        socket = world.server.host.socket()
        own = world.dialer.tunnel_info.ipv4
        assert own is not None
        await socket.connect((str(own.ip), 80))
        chat = await wrap_client_stream(nursery, trio.SocketStream(socket), "web.internal", "/chat")
        await chat.send_message("ab")
        assert await chat.get_message() == "abab"
        await chat.aclose()

        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await fetch(world, "/slow", 80))

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await trio.sleep(0.1)
            stop.set()  # in the middle of a request, which is still answered
        assert answers[0].endswith(b"done")
    assert life == ["startup", "shutdown"]


async def test_the_end_of_the_tunnel_ends_the_server() -> None:
    async with inside() as world:
        app, _ = make_app()
        with world.dialer.as_trio_sockets():
            listeners = await trio.open_tcp_listeners(80)
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="down"), flatten_subgroups=True, allow_unwrapped=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, app, hypercorn.Config(), listeners)
                world.dialer._pump.fail()
                await trio.sleep(1)

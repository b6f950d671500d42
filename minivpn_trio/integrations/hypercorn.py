"""hypercorn, and with it any ASGI application, served inside a tunnel.

hypercorn makes its listeners from sockets of the standard library, which
cannot be had in a tunnel. This serves its protocols on listeners of Trio's:

    with dialer.as_trio_sockets():
        listeners = await trio.open_tcp_listeners(80)
    await serve(app, hypercorn.Config(), listeners)

HTTP/1.1, HTTP/2 and websockets work; HTTP/3 does not. Of ``Config`` everything counts that concerns a
connection; what concerns binding, workers, reloading and TLS does not. For TLS give ``trio.SSLListener`` objects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, Framework, LifespanState
from hypercorn.utils import wrap_app

__all__ = ["serve"]

Listener: TypeAlias = trio.abc.Listener[Any]


async def serve(
    app: Framework,
    config: Config,
    listeners: Sequence[Listener],
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app``, ASGI or WSGI, on ``listeners``; ``task_status`` says that it has started up.

    Ends at once when cancelled. When ``shutdown_trigger`` returns, it stops accepting, gives open requests
    ``config.graceful_timeout`` seconds, and tells the application. Raises, in ExceptionGroups, what the
    application's startup raises and what the listeners raise (OSError, when the tunnel is gone).
    """
    state: LifespanState = {}
    wrapped = wrap_app(app, config.wsgi_max_body_size, None)
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)
    handler: Any = partial(TCPServer, wrapped, config, context, ConnectionState(state.copy()))
    async with trio.open_nursery() as life:
        await life.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as handlers:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(partial(trio.serve_listeners, handler, [*listeners], handler_nursery=handlers))
                task_status.started()
                await shutdown_trigger()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            handlers.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        await lifespan.wait_for_shutdown()
        life.cancel_scope.cancel()

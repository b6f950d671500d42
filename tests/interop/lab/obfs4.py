"""An obfs4 bridge in front of a server: Debian's obfs4proxy as a managed server transport (pt-spec 3.2, 3.3)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from .namespaces import LabError, Namespace, tool

__all__ = ["obfs4_bridge"]


@contextlib.contextmanager
def obfs4_bridge(
    namespace: Namespace, folder: Path, *, host: str, port: int, forward_to: str, iat_mode: int = 0
) -> Iterator[str]:
    """Listening on ``port`` inside the block; its URL as minivpn spells it, with ``host`` as seen by clients."""
    state = folder / f"bridge-{port}"
    state.mkdir()
    log = folder / f"bridge-{port}.log"
    variables = {
        "TOR_PT_MANAGED_TRANSPORT_VER": "1",
        "TOR_PT_STATE_LOCATION": str(state),
        "TOR_PT_SERVER_TRANSPORTS": "obfs4",
        "TOR_PT_SERVER_BINDADDR": f"obfs4-0.0.0.0:{port}",
        "TOR_PT_SERVER_TRANSPORT_OPTIONS": f"obfs4:iat-mode={iat_mode}",
        "TOR_PT_ORPORT": forward_to,
    }
    with log.open("wb") as output:
        command = [tool("env"), *(f"{name}={value}" for name, value in variables.items()), tool("obfs4proxy")]
        process = namespace.popen(command, output=output)
    try:
        deadline = time.monotonic() + 15
        while "SMETHODS DONE" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"obfs4proxy did not start:\n{log.read_text()}")
            time.sleep(0.01)
        line = next(line for line in log.read_text().splitlines() if line.startswith("SMETHOD obfs4 "))
        arguments = line.partition(" ARGS:")[2].replace(",", "&")
        yield f"obfs4://{host}:{port}?{arguments}"
    finally:
        process.kill()
        process.wait()

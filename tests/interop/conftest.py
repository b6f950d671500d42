"""The laboratory as a session fixture, and what happens where there can be none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.interop.lab.lab import Lab, Server, why_not
from tests.interop.lab.management import MANAGED
from tests.interop.lab.namespaces import tool
from tests.interop.lab.openvpn import ServerOptions

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder. As root and in CI a missing server is a failure (the ``lab``
    fixture raises); an ordinary user cannot make namespaces, so there the tests are left out."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.interop)
    in_ci = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
    required = in_ci or os.geteuid() == 0 or os.environ.get("MINIVPN_INTEROP") == "required"
    if ours and not required and why_not() is not None:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]
    elif ours:
        foreign = [item for item in ours if not _suits(item)]
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if item not in foreign]


@cache
def _version() -> tuple[int, int]:
    """Of the installed openvpn, such as (2, 6). A newer one may stand first on PATH."""
    said = subprocess.run([tool("openvpn"), "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    major, minor = said.split()[1].split("_")[0].split(".")[:2]
    return int(major), int(minor)


def _suits(item: pytest.Item) -> bool:
    """Whether the installed server can act out what the test wants of it."""
    marker = item.get_closest_marker("openvpn")
    if marker is None:
        return True
    return marker.kwargs.get("since", (0, 0)) <= _version() < marker.kwargs.get("before", (99, 0))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The laboratory; the test process itself is in its client namespace meanwhile."""
    with Lab(tmp_path_factory.mktemp("lab")) as made, made.our_namespace.entered():
        yield made


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(lab: Lab) -> Iterator[StartServer]:
    """``start_server(transport="tcp", ...)``: a server for this test, stopped after it."""
    with ExitStack() as stack:

        def start(**options: object) -> Server:
            return stack.enter_context(lab.server(ServerOptions(**options)))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def managed_server(start_server: StartServer) -> StartServer:
    """A server that lets in whom the test lets in."""

    def start(*extra: str, **options: object) -> Server:
        return start_server(extra=(*MANAGED, *extra), **options)

    return start

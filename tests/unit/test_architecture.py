"""The rules of the house that import-linter cannot say; its own contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minivpn_trio
from minivpn_trio import wiring

PACKAGE = Path(minivpn_trio.__file__).parent
ROOT = PACKAGE.parent
STAGES = (
    "networkio", "packetmuxer", "reliable", "controlchannel", "tlssession", "datachannel", "tun", "netstack",
)  # fmt: skip
#: Files and folders of a stage whose subject is I/O: they and the workers may know Trio, clocks and sockets.
IO_FILES = {
    "networkio/transport.py", "networkio/udp.py", "networkio/floating.py", "networkio/stream.py",
    "networkio/scrambled.py", "networkio/dial.py", "networkio/proxies.py", "networkio/obfs4.py",
    "netstack/sockets/", "netstack/resolver.py", "netstack/dns_client.py", "netstack/dns_streams.py", "tun/linux.py",
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def is_core(path: Path) -> bool:
    """A module of a stage that must run without Trio, clock or randomness of its own."""
    name = relative(path)
    return name.split("/")[0] in STAGES and path.name != "worker.py" and not name.startswith(tuple(IO_FILES))


def imported(module: ast.Module) -> set[str]:
    """Top-level names of everything imported, function-level and quoted imports included."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                names.add(str(first.value).split(".")[0])
    return names


def attributes(module: ast.Module) -> set[str]:
    """Every ``name.attribute`` used, as text."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


@pytest.mark.parametrize("path", [path for path in MODULES if is_core(path)], ids=relative)
def test_cores_have_no_io(path: Path) -> None:
    module = tree(path)
    forbidden = {"trio", "time", "random", "secrets", "select", "selectors", "asyncio", "threading", "subprocess"}
    if relative(path) == "netstack/scapy_wire/loading.py":
        forbidden -= {"threading"}  # scapy is imported once, in whichever thread comes first
    assert not imported(module) & forbidden
    assert not attributes(module) & {"os.urandom", "datetime.now", "datetime.utcnow", "socket.socket"}
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(module))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("OpenSSL", {f"tlssession/openssl/{name}.py" for name in ("settings", "context", "engine")}),
        ("scapy", {"netstack/scapy_wire/loading.py", "trace_sinks.py", "trace_sinks/pcap.py"}),
        ("trio_typing", set()),
        ("hypothesis", {"testing/strategies.py"}),
    ],
)
def test_libraries_stay_where_they_belong(name: str, allowed: set[str]) -> None:
    assert {relative(path) for path in MODULES if name in imported(tree(path))} <= allowed


def test_channels_are_opened_in_one_place() -> None:
    users = {relative(path) for path in MODULES if "open_memory_channel" in path.read_text() and any(
        isinstance(node, ast.Attribute | ast.Name) and "open_memory_channel" in ast.unparse(node)
        for node in ast.walk(tree(path))
    )}  # fmt: skip
    assert users == {"wiring.py"}


def test_importing_the_package_is_quiet() -> None:
    """Neither scapy (0.3 s, netlink sockets) nor the testing package comes with ``import minivpn_trio``."""
    heavy = ("scapy", "minivpn_trio.testing", "httpx", "rich")
    code = f"import sys, minivpn_trio; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_module_names_its_exports() -> None:
    without = {
        relative(path)
        for path in MODULES
        if not any(
            isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
            for node in tree(path).body
        )
    }
    assert {name for name in without if not name.endswith(("__init__.py", "__main__.py"))} == set()


def test_every_module_says_what_it_is() -> None:
    assert [relative(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_untrusted_functions_are_not_called_across_stages() -> None:
    """What parses hostile bytes is called in its own package (or packet/), where ProtocolError is caught."""
    offenders = []
    for path in MODULES:
        stage = relative(path).split("/")[0]
        if stage == "testing":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and any(alias.name.endswith("_untrusted") for alias in node.names):
                source = (node.module or "").split(".")[0]
                if node.level == len(path.relative_to(PACKAGE).parts) and source not in {"packet", "config", stage}:
                    offenders.append(f"{relative(path)}: {node.module}")
    assert offenders == []


# the wiring table


def test_edges_that_wait_form_no_cycle() -> None:
    tuple(graphlib.TopologicalSorter(wiring.waiting_graph()).static_order())


def test_a_cycle_would_be_found() -> None:
    """The check above can fail: closing the ring the other way round does."""
    down = {(edge.source, edge.target) for edge in wiring.EDGES}
    edge = wiring.EDGES[0]
    back = wiring.Edge("packetmuxer.move_up", "networkio.move_up", edge.item, 1, wiring.WhenFull.WAIT, "")
    assert (back.source, back.target) not in down
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(wiring.waiting_graph((*wiring.EDGES, back))).static_order())


def test_edges_are_unique_and_join_known_workers() -> None:
    pairs = [(edge.source, edge.target) for edge in wiring.EDGES]
    assert len(pairs) == len(set(pairs))
    for name in {name for pair in pairs for name in pair}:
        if name in {"client", "challenge", "tun.inbound", "tun.outbound"}:
            continue
        stage, _, worker = name.partition(".")
        functions = {
            node.name for node in tree(PACKAGE / stage / "worker.py").body if isinstance(node, ast.AsyncFunctionDef)
        }
        assert worker in functions, name


def test_data_edges_carry_bursts() -> None:
    """Never one packet an item: 82 us against 13."""
    data = ("networkio.", "datachannel.move", "tun.")
    for edge in wiring.EDGES:
        if edge.source.startswith(data) or (edge.target.startswith(data)):
            assert "Burst" in edge.item, edge.name


def test_one_lifetime_per_channel() -> None:
    """Edges into one worker share its channel, so they live and wait alike."""
    by_target: dict[str, set[wiring.Lifetime]] = {}
    for edge in wiring.EDGES:
        by_target.setdefault(edge.target, set()).add(edge.lifetime)
    assert {target for target, lifetimes in by_target.items() if len(lifetimes) > 1} == set()


def test_direct_edges_are_those_of_the_data_path() -> None:
    """Their targets' inboxes are waited for by nobody else, and every one of them has a worker that gives its step."""
    source = (PACKAGE / "wiring.py").read_text()
    assert source.count("direct=True") == 6
    for edge in wiring.EDGES:
        if edge.direct and edge.target != "tun.inbound":
            stage, _, worker = edge.target.partition(".")
            function = next(
                node
                for node in tree(PACKAGE / stage / "worker.py").body
                if isinstance(node, ast.AsyncFunctionDef) and node.name == worker
            )
            assert "stepped(inlet, step)" in ast.unparse(function), edge.name
            assert "Burst" in edge.item


def test_the_picture_in_architecture_md_is_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minivpn_trio.wiring"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    text = (ROOT / "ARCHITECTURE.md").read_text()
    found = re.search(r"<!-- wiring: begin -->\s*```mermaid\n(.*?)```\s*<!-- wiring: end -->", text, re.S)
    assert found is not None
    assert found.group(1).strip() == done.stdout.strip()


def test_layers_name_every_module() -> None:
    """A new top-level module gets a place in the order of pyproject.toml, by decision."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["id"] == "layers")["layers"]
    named = set(re.findall(r"\w+", " ".join(layers)))
    there = {relative(path).split("/")[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert there <= named

"""What it takes to start: imports, the command's help, and a tunnel from nothing.

``python -m benchmarks.startup [--runs N] [--only imports|cold] [--json FILE]``; the cold connections as root.

Everything is measured in processes of its own, each of which does one thing and ends, in turn, with the disk's caches
warm and what Python compiles (``__pycache__``) written, in a folder of their own. The first round, which does that, is
thrown away.

* Imports and the command: from the start of the process to its end. The interpreter's own start, an empty program's, is
  measured in the same rounds, and subtracted round by round in the second column.
* A cold connection: from the start of a Python process that does nothing but enter ``open_tun_dialer`` until it is
  inside, and what that is made of; beside it the C client, from the start of its process until it says
  "Initialization Sequence Completed". Both through the real server, each in the namespace where it is at home.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.interop.lab.lab import Lab
from tests.interop.lab.namespaces import Namespace
from tests.interop.lab.openvpn import ServerOptions

from .figures import in_turn, quantiles
from .processes import PATIENCE, ROOT, CClient, compiled, run_seconds

__all__ = ["main"]

EMPTY = "an empty program"
IMPORT, DIALER = "import minivpn_trio", "from minivpn_trio import open_tun_dialer"
HELP, SCRIPT = "python -m minivpn_trio --help", "minivpn-trio --help"
PROGRAMS = {
    EMPTY: ["-c", "pass"],
    IMPORT: ["-c", IMPORT],
    DIALER: ["-c", DIALER],
    # Of that, what is not ours.
    "import trio": ["-c", "import trio"],
    "import trio, cryptography, OpenSSL": [
        "-c", "import trio, cryptography.x509, cryptography.hazmat.primitives.ciphers.aead, OpenSSL.SSL"
    ],
    HELP: ["-m", "minivpn_trio", "--help"],
}  # fmt: skip
#: Seconds of the median: imports beyond the interpreter's own start, the command as its user waits for it.
BARS = {IMPORT: 0.25, DIALER: 0.25, HELP: 0.3, SCRIPT: 0.3}
WHOLE = {HELP, SCRIPT}

#: Unix times on stdout: the interpreter is up, imports are done, the tunnel is up.
COLD = """
import time
began = time.time()
import sys
import trio
from minivpn_trio import open_tun_dialer
imported = time.time()

async def main():
    async with open_tun_dialer(sys.argv[1]):
        print(began, imported, time.time(), flush=True)

trio.run(main)
"""
#: What a cold connection is made of: from each of the times to the next.
PARTS = ("interpreter", "imports", "open_tun_dialer to ready")
COLD_OURS, COLD_C = "ours", "C client"


def programs() -> dict[str, list[str]]:
    """The commands to be timed; the installed script where there is one."""
    commands = {name: [sys.executable, *argv] for name, argv in PROGRAMS.items()}
    script = Path(sys.executable).with_name("minivpn-trio")
    if script.exists():
        commands[SCRIPT] = [str(script), "--help"]
    return commands


def measure_imports(runs: int) -> dict[str, Any]:
    """Quantiles of the seconds of each program: whole, and beyond the empty one's of the same round."""
    with compiled() as environment:
        contestants = {name: partial(run_seconds, *argv, environment=environment) for name, argv in programs().items()}
        return summarize_imports(in_turn(contestants, runs))


def summarize_imports(times: dict[str, list[float]]) -> dict[str, Any]:
    """Quantiles of each, ``whole`` and ``beyond`` the empty program of the same round; and the bar, if there is one."""
    summary: dict[str, Any] = {}
    for name, seconds in times.items():
        beyond = [each - empty for each, empty in zip(seconds, times[EMPTY], strict=True)]
        summary[name] = {"whole": quantiles(seconds), "beyond": quantiles(beyond)}
        if name in BARS:
            figure = summary[name]["whole" if name in WHOLE else "beyond"]["p50"]
            summary[name] |= {"bar": BARS[name], "met": figure <= BARS[name]}
    return summary


def imports_table(summary: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    lines = [f"{'ms':42}{'whole p50':>12}{'p99':>8}{'beyond p50':>14}{'p99':>8}{'bar':>8}"]
    for name, row in summary.items():
        line = f"{name:42}"
        for which, width in (("whole", 12), ("beyond", 14)):
            line += f"{row[which]['p50'] * 1e3:{width}.0f}{row[which]['p99'] * 1e3:8.0f}"
        if "bar" in row:
            line += f"{row['bar'] * 1e3:8.0f}  {'met' if row['met'] else 'MISSED'}"
            line += " by the whole" if name in WHOLE else ""
        lines.append(line)
    return lines


def parts(launched: float, line: str) -> list[float]:
    """Seconds of each of PARTS, of a program that was started at ``launched`` and printed ``line``."""
    times = [launched, *map(float, line.split())]
    return [after - before for before, after in pairwise(times)]


def connect_cold(namespace: Namespace, profile: Path, environment: dict[str, str]) -> list[float]:
    """Seconds of each of PARTS of one process. SystemExit if it does not connect."""
    with namespace.entered():
        launched = time.time()
        process = subprocess.Popen(
            [sys.executable, "-c", COLD, str(profile)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    if not output:
        raise SystemExit("the cold connection failed; see above")
    return parts(launched, output)


def measure_cold(runs: int) -> dict[str, Any]:
    """Quantiles of the seconds until the tunnel is up, ours and the C client's in turn, and of our parts."""
    made_of: list[list[float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder)) as lab,
        lab.server(ServerOptions(inner_ipv6=False)) as server,
        compiled() as environment,
    ):
        profile, c_client = server.profile_file(), CClient(lab.c_namespace, server)

        def ours() -> float:
            made_of.append(connect_cold(lab.our_namespace, profile, environment))
            return sum(made_of[-1])

        def theirs() -> float:
            seconds = c_client.connect()
            c_client.stop()
            return seconds

        times = in_turn({COLD_OURS: ours, COLD_C: theirs}, runs)
    summary = {name: quantiles(seconds) for name, seconds in times.items()}
    # Its first is thrown away there, too.
    columns = zip(*made_of[1:], strict=True)
    summary |= {part: quantiles(list(seconds)) for part, seconds in zip(PARTS, columns, strict=True)}
    return summary


def cold_table(summary: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    lines = [f"{'ms, from the process to the tunnel':42}{'p50':>12}{'p99':>8}"]
    for name in (COLD_OURS, *PARTS, COLD_C):
        label = f"  {name}" if name in PARTS else name
        lines.append(f"{label:42}{summary[name]['p50'] * 1e3:12.1f}{summary[name]['p99'] * 1e3:8.1f}")
    return lines


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Imports, the command's help, and connecting from nothing.")
    parser.add_argument("--runs", type=int, default=20, help="processes of each kind (default 20; 100 to quote p99)")
    parser.add_argument("--only", choices=("imports", "cold"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    summary: dict[str, Any] = {}
    if arguments.only != "cold":
        summary["imports"] = measure_imports(arguments.runs)
        print("\n".join(imports_table(summary["imports"])), flush=True)
    if arguments.only != "imports":
        summary["cold"] = measure_cold(arguments.runs)
        print("\n".join(cold_table(summary["cold"])))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What is checked, and how: ``nox`` runs the lint, the types and all tests; ``nox -l`` lists the rest.

Interop tests need the real openvpn and obfs4proxy. As root, with apt-get, they are installed; elsewhere one line
says what is missing and the interop tests are left out, except in CI (``CI=true``), where a
missing server is a failure.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Where Debian keeps openvpn and ip; not on everybody's PATH.
SBIN = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin"])
SERVER_TOOLS = {"openvpn": "openvpn", "ip": "iproute2", "nsenter": "util-linux", "obfs4proxy": "obfs4proxy"}
#: What ``bench`` runs, with few rounds: what needs nothing, and what needs the real server.
SHORT_BENCHMARKS = {
    "micro": "--rounds 50",
    "netsim": "",
    # A keepalive falls into 12 seconds.
    "scale": "--idle 500 --active 50 --tunnels 10 --seconds 12",
    "startup": "--runs 5 --only imports",
}
SHORT_SERVER_BENCHMARKS = {
    "end_to_end": "--runs 3",
    "latency": "--count 100 --rounds 2 --connects 5 --load 16",
    "startup": "--runs 5 --only cold",
}


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, name))


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing_tools() -> list[str]:
    """The packages of SERVER_TOOLS whose program is not there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), SBIN])
    return [package for program, package in SERVER_TOOLS.items() if shutil.which(program, path=path) is None]


def can_run_server(session: nox.Session) -> bool:
    """Whether the interop tests can run here, after installing what may be installed."""
    root = os.geteuid() == 0
    missing = missing_tools()
    if missing and root and shutil.which("apt-get"):
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", "-q", external=True, env=env, success_codes=range(256), silent=True)
        session.run(
            "apt-get", "install", "-q", "-y", "--no-install-recommends", *missing,
            external=True, env=env, success_codes=range(256), silent=True,
        )  # fmt: skip
        missing = missing_tools()
    if not missing and root:
        return True
    wanted = f"install {', '.join(missing)}" if missing else "run as root"
    wanted += " and run as root" if missing and not root else ""
    message = f"interop tests need the real server in a network namespace: {wanted}"
    if in_ci():
        session.error(message)
    session.warn(f"{message}. Left out: tests/interop")
    return False


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """ruff, flake8-async's checkpoint rules, the import contracts."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("flake8-async", "--enable", "ASYNC9", *map(str, Path("minivpn_trio").rglob("*.py")))
    session.run("lint-imports", "--no-cache")


@nox.session(python=PYTHON)
def typecheck(session: nox.Session) -> None:
    """mypy --strict, and pyright's opinion of the public face: every public name has a known type."""
    session.install("-e", ".", *group("types"), *group("test"))
    session.run("mypy")
    session.run("pyright", "-p", "tests/typing")
    session.run("pyright", "--verifytypes", "minivpn_trio", "--ignoreexternal")


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """All tests, interop last; arguments go to pytest and replace the selection."""
    session.install("-e", ".", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    workers = str(min(4, os.cpu_count() or 1))
    session.run("pytest", "-n", workers, "-m", "not interop and not mutants")
    if can_run_server(session):
        # One after the other: they compete for nothing then, and their timings mean something.
        session.run("pytest", "-m", "interop", "--durations", "10", env={"MINIVPN_INTEROP": "required"})


@nox.session(python=PYTHON)
def stubs(session: nox.Session) -> None:
    """A client of our public face, type checked where trio-typing's stubs are installed."""
    session.install("-e", ".", *group("stubs"))
    session.run("mypy", "--config-file", "tests/typing/mypy-stubs.ini", "tests/typing/client_with_stubs.py")
    session.run("pytest", "-p", "no:cacheprovider", "--override-ini", "addopts=", "--override-ini", "timeout=",
                "--noconftest", "-W", "default", "tests/typing/check_task_status.py")  # fmt: skip


@nox.session(python=PYTHON)
def fuzz(session: nox.Session) -> None:
    """The hypothesis tests with the long profile; what was found stays in .hypothesis."""
    session.install("-e", ".", *group("test"))
    paths = session.posargs or [str(path) for path in (Path("tests/property"), Path("tests/unit")) if path.exists()]
    session.run("pytest", "--override-ini", "timeout=0", "-m", "not interop", *paths,
                env={"HYPOTHESIS_PROFILE": "fuzz"})  # fmt: skip


@nox.session(python=PYTHON)
def mutants(session: nox.Session) -> None:
    """Defects planted in TCP and in the reliability layer, one at a time: other tests must find each."""
    session.install("-e", ".", *group("test"))
    workers = str(min(4, os.cpu_count() or 1))
    session.run("pytest", "-n", workers, "--override-ini", "timeout=600", *session.posargs,
                *(f"tests/property/test_{name}_mutants.py" for name in ("tcp", "fast_path", "reliable")))  # fmt: skip


@nox.session(python=PYTHON)
def hostile(session: nox.Session) -> None:
    """A hundred million hostile segments against TCP, on all cores: --segments, --seeds FIRST:END, --processes.

    A failure names its seed: ``--seeds 17:18`` plays it again.
    """
    session.install("-e", ".", *group("test"))
    session.run("python", "tests/property/tcp_attackers.py", "--segments", "100000000", *session.posargs)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """A short round of everything in benchmarks; arguments go to benchmarks.end_to_end, which is run alone then."""
    session.install("-e", ".", *group("bench"))
    if not session.posargs:
        for module, arguments in SHORT_BENCHMARKS.items():
            session.run("python", "-m", f"benchmarks.{module}", *arguments.split())
    if can_run_server(session):
        if session.posargs:
            session.run("python", "-m", "benchmarks.end_to_end", *session.posargs)
            return
        for module, arguments in SHORT_SERVER_BENCHMARKS.items():
            session.run("python", "-m", f"benchmarks.{module}", *arguments.split())


@nox.session(python=PYTHON)
def bars(session: nox.Session) -> None:
    """TCP's bars beside Linux, applied to the figures that are kept in benchmarks/netsim_kernel.json; ``-- --runs 5``
    (or any argument of benchmarks.netsim_kernel) measures anew, as root on a machine that does nothing else."""
    session.install("-e", ".", *group("bench"))
    arguments = session.posargs or ["--kept"]
    session.run("python", "-m", "benchmarks.netsim_kernel", "--check", *arguments)
    if session.posargs:
        session.run("python", "-m", "benchmarks.httpx_tls", "--check")


@nox.session(python=PYTHON)
def changelog(session: nox.Session) -> None:
    """The changelog as the news fragments would make it."""
    session.install(*group("changelog"))
    session.run("towncrier", "build", "--draft", "--version", PYPROJECT["project"]["version"])

"""``minivpn-trio check``: what a profile means, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.profile import Diagnostic, Profile
from ..config.report import describe
from ..profiles import read_profile
from .printable import printable

__all__ = ["check"]

#: Servers to list for a human; a profile may name hundreds.
MAX_SHOWN = 6


@click.command(short_help="Say what a profile means and what is wrong with it.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one line a file.")
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Read each profile FILE as openvpn 2.6 would, and say what it comes to.

    Nothing is connected and nothing is run. Files that a profile names (keys,
    certificates) are looked for beside it; their contents are never shown.

    A warning is something that does not do what somebody may expect, such as a
    script that is not run here. An error makes the profile unusable, such as a
    key that belongs to another certificate. What a profile leaves to be
    supplied, a password or a file that is not there, is listed as needed and
    is no error. What is locked by a password is not looked into.

    \b
    With --json each object has
      file, ok, complete (false: a file is missing without which nothing
      can be connected), remotes [{host, port, proto}, also proxy and
      scramble where there are any], data_ciphers, fallback_cipher,
      auth, control_wrap (none, tls-auth, tls-crypt, tls-crypt-v2),
      key_direction, needs ("auth-user-pass", "askpass", "http-proxy",
      "socks-proxy", "file:NAME" ...),
      compression (none, comp-lzo-no, stub, stub-v2: the framing), fragment,
      warnings and errors [{line, directive, message}].

    \b
    Exit status:
      0  no profile has an error
      2  at least one has

    \b
    Examples:
      minivpn-trio check client.ovpn
      minivpn-trio check --json *.ovpn | jq 'select(.ok | not) | .file'
    """
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for position, file in enumerate(files):
        profile = read_profile(file)
        failed = failed or not profile.ok
        if as_json:
            click.echo(json.dumps(describe(profile)))
        else:
            if position:
                console.print()
            _show(console, profile)
    if failed:
        raise SystemExit(2)


def _show(console: Console, profile: Profile) -> None:
    if not profile.ok:
        verdict = Text("cannot be used", style="bold red")
    elif profile.absent:
        names = dict.fromkeys(printable(each.name) for each in profile.absent)
        verb = "is" if len(names) == 1 else "are"
        verdict = Text(f"not complete: {', '.join(names)} {verb} missing", style="bold yellow")
    else:
        verdict = Text("can be used", style="green")
    console.print(Text.assemble((printable(profile.file), "bold"), ": ", verdict))
    config = profile.partial
    if config.remotes:
        rows = list(_rows(profile))
        width = max(len(name) for name, _ in rows) + 2
        if console.is_terminal:
            table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2))
            for name, text in rows:
                table.add_row(Text(f"  {name}", style="dim"), Text(printable(text), overflow="fold"))
            console.print(table)
        else:  # for a program that looks for something, a row is a line
            for name, text in rows:
                console.print(Text(f"  {name:{width}}{printable(text)}"))
    _complain(console, "error", "red", profile.errors)
    _complain(console, "warning", "yellow", profile.warnings)


def _rows(profile: Profile) -> Iterable[tuple[str, str]]:
    config = profile.partial
    servers = [f"{_bracketed(remote.host)}:{remote.port} {remote.proto}" for remote in config.remotes]
    more = f", and {len(servers) - MAX_SHOWN} more" if len(servers) > MAX_SHOWN else ""
    order = " (in random order)" if config.remote_random and len(servers) > 1 else ""
    yield "servers", ", ".join(servers[:MAX_SHOWN]) + more + order
    proxies = list(dict.fromkeys(str(remote.proxy) for remote in config.remotes if remote.proxy is not None))
    if proxies:
        yield "through", ", ".join(proxies[:MAX_SHOWN])
    scrambles = list(dict.fromkeys(remote.scramble.kind for remote in config.remotes if remote.scramble is not None))
    if scrambles:
        yield "scrambled", ", ".join(scrambles)
    yield "data ciphers", ":".join(config.data_ciphers)
    if config.data_ciphers_fallback is not None:
        yield "without negotiation", config.data_ciphers_fallback
    yield "digest", config.auth
    wrap = config.control_wrap
    if wrap == "tls-auth":
        wrap_text = "tls-auth, " + (
            "both directions with one key" if config.key_direction is None else f"key direction {config.key_direction}"
        )
    else:
        wrap_text = wrap
    yield "control channel", wrap_text
    if config.compression != "none":
        comes = "the server may compress" if config.receive_compressed else "nothing is compressed"
        yield "framing", f"{config.compression} ({comes})"
    if config.fragment is not None:
        yield "fragment", f"{config.fragment} bytes"
    if profile.needs:
        missing = {each.directive: f"{each.name} is missing" for each in profile.missing}
        yield "still needed", ", ".join(
            f"{what} ({missing[what]})" if what in missing else what for what in profile.needs
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _complain(console: Console, kind: str, style: str, diagnostics: Iterable[Diagnostic]) -> None:
    for each in diagnostics:
        where = f" line {each.line}" if each.line is not None else ""
        what = f" {each.directive}" if each.directive else ""
        console.print(Text.assemble("  ", (kind, style), where, (what, "bold"), f": {each.message}"))

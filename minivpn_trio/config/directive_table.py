"""docs/directives.md, made of the tables that the program goes by.

``python -m minivpn_trio.config.directive_table > docs/directives.md``
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from .directives import DIRECTIVES, Directive, Treatment
from .push_options import HANDLERS, REFUSED, UNUSED
from .push_update import UPDATABLE

__all__ = ["markdown"]

_HEAD = """\
# Directive by directive

What minivpn-trio does with each directive of a profile: all that openvpn 2.6.14 knows, the older names that it has
dropped, and some of other programs' that are met in profiles. Made by `python -m minivpn_trio.config.directive_table`.

- **honoured**: it means here what it means there.
- **ignored**: it has no meaning for a tunnel inside a program, and leaving it out harms nothing.
- **ignored with a warning**: left out as well, but whoever wrote it should know. `tls-verify` is an error where no
  other directive checks who the server is (`remote-cert-tls`, `verify-x509-name` ...).
- **refused**: the profile cannot be used, since leaving it out would make it fail in a way that nobody understands, or
  be less safe than it says.

A directive that is not in the table is an error, unless `ignore-unknown-option`, `setenv opt` or
`setenv FORWARD_COMPATIBLE 1` allows it. *values*: how many it takes. *block*: it may be written inline, as
`<directive> ... </directive>`. *per server*: it may stand in a `<connection>` block.
"""

_PEER_INFO = """\
## What a server is told about this client

With key method 2 go `IV_VER`, `IV_PLAT`, `IV_TCPNL`, `IV_MTU`, `IV_NCP`, `IV_CIPHERS`, `IV_PROTO`, the compression
framings, `IV_SSO` if there is somebody to answer, and `IV_GUI_VER` and `IV_SSO` if the profile sets them with `setenv`.
Version and `IV_PROTO` (8094) are those of openvpn 2.7 on Linux, whose abilities this client has: servers decide by
them what they may push, and a combination that no other client sends would single this one out.

`push-peer-info` adds what `setenv` says of `UV_*`, `IV_PLAT_VER`, `IV_HWADDR` and `IV_SSL`, and nothing by itself:
openvpn would look up the hardware address of the network card, the version of the system and that of its TLS library,
which tell one user from all others wherever they connect from. A server that insists on `IV_HWADDR` gets it by
`setenv IV_HWADDR 02:00:5e:10:00:01` with an address of the user's choice.
"""


def markdown() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *_totals(), *_profile(), *_push(), _PEER_INFO])


def _totals() -> Iterator[str]:
    counts = Counter(row.treatment for row in DIRECTIVES.values())
    yield "| treatment | directives |\n|---|---|"
    for treatment in Treatment:
        yield f"| {treatment.value} | {counts[treatment]} |"
    yield f"| all | {len(DIRECTIVES)} |\n"


def _profile() -> Iterator[str]:
    yield "| directive | treatment | values | block | per server | why |\n|---|---|---|---|---|---|"
    for name in sorted(DIRECTIVES):
        row = DIRECTIVES[name]
        cells = [
            f"`{name}`",
            row.treatment.value,
            _values(row),
            "yes" if row.inline else "",
            "yes" if row.in_connection else "",
            row.why,
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _values(row: Directive) -> str:
    low, high = row.values
    if row.treatment is not Treatment.HONOURED:
        return ""
    if low == high:
        return str(low)
    return f"{low} or more" if high >= 15 else f"{low} to {high}"


def _push() -> Iterator[str]:
    yield "## What a server may push\n"
    yield (
        "*updatable*: a server may change it while the tunnel is up (`PUSH_UPDATE`); an update of another option\n"
        "begins a new session. Values that make no sense, and options that are not in the table, are left out\n"
        "with a warning.\n"
        "`pull-filter` and `route-nopull` are applied to both.\n"
    )
    names = HANDLERS.keys() | UNUSED | REFUSED
    honoured, unused, refused = len(HANDLERS), len(UNUSED - HANDLERS.keys()), len(REFUSED)
    yield f"Honoured {honoured}, ignored {unused}, refused {refused}.\n"
    yield "| option | treatment | updatable |\n|---|---|---|"
    for name in sorted(names):
        treatment = "honoured" if name in HANDLERS else "ignored" if name in UNUSED else "refused, with a warning"
        yield f"| `{name}` | {treatment} | {'yes' if name in UPDATABLE else ''} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(markdown())

"""What the statements of a profile amount to: each directive by the table, then all of them together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .directives import DIRECTIVES, Directive, Treatment
from .draft import BadValue, Draft, Handler, RemoteDraft, WrapDraft
from .grammar import Statement
from .honour_data import HANDLERS as DATA
from .honour_network import HANDLERS as NETWORK
from .honour_network import PEER_INFO_ALWAYS
from .honour_proxy import HANDLERS as PROXY
from .honour_proxy import apply_proxies
from .honour_trust import HANDLERS as TRUST
from .model import CBC_CIPHERS, DEFAULT_DATA_CIPHERS, SMALL_BLOCK_CIPHERS, Remote, TunnelConfig

__all__ = ["finish", "interpret"]

_HANDLERS: dict[str, Handler] = {**NETWORK, **PROXY, **DATA, **TRUST}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_DEFAULT_PORT = 1194


def interpret(draft: Draft, statements: Sequence[Statement]) -> None:
    """Apply every statement to ``draft``. Never raises."""
    for statement in statements:
        # These two work on lines before them as well, as a tolerant reader should.
        if statement.name == "ignore-unknown-option":
            draft.tolerated.update(statement.values)
        elif statement.name == "setenv" and statement.values == ("FORWARD_COMPATIBLE", "1"):
            draft.forward_compatible = True
    for statement in statements:
        _apply(draft, statement)


def _apply(draft: Draft, statement: Statement) -> None:
    optional = False
    if statement.name == "setenv" and statement.values[:1] == ("opt",):
        if len(statement.values) < 2:
            draft.error(statement, "a directive is wanted after opt")
            return
        statement = replace(statement, name=statement.values[1], values=statement.values[2:])
        optional = True
    directive = DIRECTIVES.get(statement.name)
    if directive is None:
        _unknown(draft, statement, optional=optional)
        return
    if draft.connection is None:
        draft.lines[directive.name] = statement.line
    else:
        draft.connection.names.add(directive.name)
        if directive.name not in _BINDING:
            draft.lines.setdefault(directive.name, statement.line)
    if statement.block is not None and not directive.inline:
        draft.error(statement, "it cannot be written as a block")
        return
    if draft.connection is not None and not directive.in_connection:
        draft.error(statement, "it cannot stand in <connection>")
        return
    if directive.name == "connection":
        _connection(draft, statement)
    elif directive.treatment is Treatment.HONOURED:
        _honour(draft, statement, directive)
    elif directive.treatment is Treatment.WARNED:
        draft.warn(statement, f"ignored: {directive.why}")
    elif directive.treatment is Treatment.REFUSED:
        draft.error(statement, directive.why)


def _honour(draft: Draft, statement: Statement, directive: Directive) -> None:
    low, high = directive.values
    count = len(statement.values)
    if statement.block is None and not low <= count <= high:
        draft.error(statement, _how_many(low, high, count) + _run_together(statement))
        return
    handler = _HANDLERS[directive.name]
    if draft.connection is not None and directive.name == "connect-retry-max":
        return  # openvpn allows it in a block and forgets it at the block's end
    own = draft.connection if directive.name not in _PROFILE_WIDE else None
    values, wraps = draft.values, draft.wraps
    if own is not None:
        draft.values, draft.wraps = own.values, own.wraps
    try:
        handler(draft, statement)
    except BadValue as bad:
        draft.error(statement, str(bad) + _run_together(statement))
        return
    finally:
        draft.values, draft.wraps = values, wraps
    hint = _run_together(statement)
    if hint:
        draft.warn(statement, "a value looks strange" + hint)
    if any(value[:1] in _TYPOGRAPHIC for value in statement.values if value):
        draft.warn(statement, "typographic quotation marks quote nothing and belong to the value; write \" or '")
    if draft.connection is not None and directive.name in _PROFILE_WIDE:
        draft.warn(statement, "it holds for all servers of the profile, not only for this <connection>")


#: What word processors make of quotation marks.
_TYPOGRAPHIC = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"

#: May stand in a ``<connection>`` and holds for all of them: delays are between rounds over all servers.
_PROFILE_WIDE = frozenset({"connect-retry"})
_BINDING = ("bind", "lport", "local", "nobind")


def _how_many(low: int, high: int, count: int) -> str:
    if low == high:
        wanted = "no value" if low == 0 else f"{low} value{'s' if low > 1 else ''}"
    else:
        wanted = f"{low} to {high} values" if count <= high or high < 15 else f"at least {low} values"
    found = "none" if count == 0 else str(count)
    return f"it takes {wanted}, here {'is' if count <= 1 else 'are'} {found}"


#: Long enough that a value does not end in one of them by chance.
_LONG_NAMES = tuple(sorted((name for name in DIRECTIVES if len(name) >= 8 and "-" in name), key=len, reverse=True))
_NO_HINT_FOR = frozenset(
    {"setenv", "setenv-safe", "setenv-opt", "pull-filter", "ignore-unknown-option", "verify-x509-name"}
)


def _run_together(statement: Statement) -> str:
    """A hint, if a value ends in the name of a directive: its line break got lost."""
    if statement.name in _NO_HINT_FOR:
        return ""
    for value in statement.values:
        if not value.endswith(_LONG_NAMES):
            continue  # so it is nearly always, and there are hundreds of names
        for name in _LONG_NAMES:
            if len(value) > len(name) and value.endswith(name):
                return f"; has the line break before '{name}' got lost?"
    return ""


def _unknown(draft: Draft, statement: Statement, *, optional: bool) -> None:
    name = statement.name
    if name in draft.tolerated:
        return
    # Lines of a torn block, keys among them, end up here: only what looks like a directive is shown.
    directive = name if _NAME.fullmatch(name) else None
    message = "openvpn knows no such directive"
    severity = "warning" if optional or draft.forward_compatible else "error"
    if directive is None:
        message = "this line is no directive of openvpn"
    else:
        first = next(
            (known for known in sorted(DIRECTIVES, key=len, reverse=True) if name.startswith(known) and len(known) > 3),
            None,
        )
        import difflib  # only to be helpful

        close = difflib.get_close_matches(name, DIRECTIVES, n=1, cutoff=0.8)
        if first is not None and name[len(first) :] in DIRECTIVES:
            message += f"; has the line break between '{first}' and '{name[len(first) :]}' got lost?"
        elif close:
            message += f"; is {close[0]} meant?"
    if severity == "warning":
        message += " (ignored, as the profile allows)"
    draft.complain(severity, statement.line, directive, message)


def _connection(draft: Draft, statement: Statement) -> None:
    if statement.block is not None or not statement.nested:
        draft.error(statement, "a block with a remote in it is wanted")
        return
    # A block starts from the defaults as they are where it stands (reference: options.c).
    defaults = draft.default_remote
    draft.connection = RemoteDraft("", defaults.port, defaults.proto, statement.line)
    for inner in statement.nested:
        _apply(draft, inner)
    if draft.connection.host:
        draft.connections.append(draft.connection)
    else:
        draft.error(statement, "there is no remote in the block")
    draft.connection = None


# -- all of it together ----------------------------------------------------------------------


def finish(draft: Draft) -> TunnelConfig:
    """The configuration, as far as it can be understood; what is missing or at odds is complained of."""
    values = draft.values
    _check_kind(draft)
    _check_binding(draft)
    _check_identity(draft)
    _wrap(draft)
    values["remotes"] = _remotes(draft)
    _ciphers(draft)
    _check_compression(draft)
    _check_sizes(draft)
    _check_float(draft)
    _check_tls(draft)
    values["pull"] = bool({"client", "pull"} & draft.lines.keys())
    values["pull_filters"] = tuple(draft.pull_filters)
    values["local_options"] = tuple(draft.local_options)
    values["peer_fingerprints"] = tuple(draft.fingerprints)
    details = values.get("push_peer_info", False)
    # openvpn too sends UV_ variables and what tells of the host only together with push-peer-info.
    values["peer_info"] = tuple(
        (name, text) for name, text in draft.peer_info.items() if details or name in PEER_INFO_ALWAYS
    )
    return TunnelConfig(**values)


def _remotes(draft: Draft) -> tuple[Remote, ...]:
    defaults = draft.default_remote
    drafts = draft.remotes
    if draft.connections:
        drafts = draft.connections
        if draft.remotes:
            draft.overall("warning", "remote", "not used: the <connection> blocks name the servers")
    remotes = []
    for each in drafts:
        # A <connection> was filled in from the defaults where it stands.
        inherited = RemoteDraft("") if draft.connections else defaults
        port = each.port if each.port is not None else inherited.port
        proto = each.proto or inherited.proto or "udp"
        if draft.forced_transport is None or proto.startswith(draft.forced_transport):
            settings = tuple(sorted(each.values.items()))
            remote = Remote(each.host, _DEFAULT_PORT if port is None else port, proto, settings=settings)
            remotes.append(apply_proxies(draft, each, remote))
    if not remotes and not any(d.directive == "remote" and d.severity == "error" for d in draft.diagnostics):
        reason = "proto-force leaves no server" if drafts else "there is no server to connect to"
        draft.overall("error", "proto-force" if drafts else "remote", reason)
    return tuple(remotes)


def _check_kind(draft: Draft) -> None:
    lines = draft.lines
    if not {"client", "tls-client"} & lines.keys() and "secret" not in lines and "tls-server" not in lines:
        draft.overall("error", "client", "neither client nor tls-client: this is no profile of a TLS client")
    elif not {"client", "pull"} & lines.keys() and "ifconfig" not in lines:
        draft.overall("warning", "pull", "neither client nor pull, and no ifconfig: the tunnel will have no address")


def _check_binding(draft: Draft) -> None:
    """Where our own end is bound. With ``pull`` openvpn binds only when asked to (options.c, need_bind)."""
    said = {name for name in _BINDING if name in draft.lines}
    _bind(draft, said, draft.values, draft.default_remote.port, draft.lines.get("nobind"))
    for each in draft.connections:
        own = each.names.intersection(_BINDING)
        if own:
            local_port = each.values.get("local_port", draft.values.get("local_port"))
            if local_port is not None:
                each.values["local_port"] = local_port
            port = each.port if "port" in each.names else draft.default_remote.port
            _bind(draft, said | own, each.values, port, each.line)


def _bind(draft: Draft, said: set[str], values: dict[str, Any], port: int | None, line: int | None) -> None:
    asked = [name for name in ("bind", "lport", "local") if name in said]
    if asked == ["lport"] and not values.get("local_port"):
        asked = []  # lport 0: any port
    if "nobind" in said and asked:
        text = f"it makes no sense together with {asked[0]}; leave one of them out"
        draft.complain("error", line, "nobind", text)
    elif "bind" in said and "lport" not in said:
        values["local_port"] = _DEFAULT_PORT if port is None else port


def _check_identity(draft: Draft) -> None:
    values, lines = draft.values, draft.lines
    failed = {d.directive for d in draft.diagnostics if d.severity == "error"}
    if not {"ca", "pkcs12", "peer-fingerprint"} & lines.keys():
        draft.overall("error", "ca", "neither a CA nor a fingerprint: no server could be told from an impostor")
    if ("cert" in lines) != ("key" in lines) and "pkcs12" not in lines and not {"cert", "key"} & failed:
        draft.overall(
            "error", "cert" if "cert" in lines else "key", "a certificate needs its key, and a key its certificate"
        )
    if not {"cert", "key", "pkcs12", "auth-user-pass"} & lines.keys():
        draft.overall(
            "error", "auth-user-pass", "neither a client certificate nor auth-user-pass: nothing to log in with"
        )
    if "(encrypted key)" in lines and "key_password" not in values:
        draft.need("askpass", lines["(encrypted key)"])
    verified = (
        values.get("remote_cert_tls")
        or values.get("remote_cert_eku")
        or values.get("remote_cert_ku") is not None
        or values.get("verify_x509_name")
        or values.get("verify_hash")
        or draft.fingerprints
    )
    named = {"remote-cert-tls", "remote-cert-eku", "verify-x509-name", "peer-fingerprint"} & failed
    if not verified and "tls-verify" in lines:
        # Instead of the warning that it is ignored.
        draft.diagnostics = [
            each for each in draft.diagnostics if (each.directive, each.severity) != ("tls-verify", "warning")
        ]
        draft.overall(
            "error",
            "tls-verify",
            "the program is never run, and nothing else tells the server from others that have a certificate of the "
            "same CA: write remote-cert-tls server or verify-x509-name instead",
        )
    elif not verified and not named:
        draft.overall(
            "warning",
            None,
            "whoever has a certificate of the same CA, any client perhaps, can pose as the server; "
            "add remote-cert-tls server if its certificate allows it",
        )


def _wrap(draft: Draft) -> None:
    general = draft.values.get("key_direction")
    if draft.wraps:
        _wrap_with(draft, draft.wraps, draft.values, general)
    for each in draft.connections:
        # What a block wraps with replaces what the profile does, of whatever kind (reference: options.c).
        if each.wraps:
            _wrap_with(draft, each.wraps, each.values, general)
        elif draft.values.get("control_wrap") != "tls-auth":
            each.values.pop("key_direction", None)
    if draft.connections and not draft.wraps:
        first, *others = [{name: each.values.get(name) for name in _WRAP_FIELDS} for each in draft.connections]
        if first["control_wrap"] is not None and all(other == first for other in others):
            # The same for each: then it is the profile's.
            draft.values.update(first)
            for each in draft.connections:
                for name in _WRAP_FIELDS:
                    del each.values[name]


_WRAP_FIELDS = ("control_wrap", "control_wrap_key", "key_direction")


def _wrap_with(draft: Draft, wraps: list[WrapDraft], values: dict[str, Any], direction: int | None) -> None:
    # The last one counts, like any directive; what openvpn calls an error stays one.
    last = wraps[-1]
    if len({wrap.kind for wrap in wraps}) > 1:
        draft.complain("error", last.line, last.kind, "only one of tls-auth, tls-crypt and tls-crypt-v2 can be used")
    values.update(
        control_wrap=last.kind,
        control_wrap_key=last.key,
        key_direction=values.get("key_direction", direction) if last.kind == "tls-auth" else None,
    )
    if last.kind == "tls-auth" and not draft.authenticates:
        draft.complain("error", last.line, last.kind, "it needs a digest, but the profile says auth none")


def _ciphers(draft: Draft) -> None:
    offered = list(draft.data_ciphers or DEFAULT_DATA_CIPHERS)
    cipher = draft.cipher
    if cipher in SMALL_BLOCK_CIPHERS and cipher not in (*offered, draft.fallback):
        # openvpn 2.6 too wants to see these in data-ciphers.
        draft.overall(
            "warning",
            "cipher",
            f"{cipher} has blocks of 64 bits and is not offered unless data-ciphers names it too; the tunnel works "
            "if the server negotiates one of data-ciphers, as most do",
        )
        cipher = None
    small = [name for name in (*offered, draft.fallback) if name in SMALL_BLOCK_CIPHERS]
    for directive in ("data-ciphers", "ncp-ciphers", "data-ciphers-fallback"):
        named = [draft.fallback] if directive == "data-ciphers-fallback" else offered
        if directive in draft.lines and not set(named).isdisjoint(small):
            draft.overall(
                "warning",
                directive,
                f"{' and '.join(dict.fromkeys(filter(None, small)))} has blocks of 64 bits: what it encrypts does not "
                "stay secret for long",
            )
    draft.values["allow_small_blocks"] = bool(small)
    if cipher is not None and cipher not in (*offered, *SMALL_BLOCK_CIPHERS):
        offered.append(cipher)
        if cipher in CBC_CIPHERS:
            draft.overall(
                "warning",
                "cipher",
                f"{cipher} is offered after {':'.join(offered[:-1])} and serves as the fallback for servers that "
                "negotiate nothing; openvpn 2.6 itself would not use it without data-ciphers",
            )
    if not draft.authenticates:
        unauthenticated = (*CBC_CIPHERS, *SMALL_BLOCK_CIPHERS)
        offered = [name for name in offered if name not in unauthenticated]
        if cipher in unauthenticated:
            cipher = None
        if draft.fallback in unauthenticated:
            draft.fallback = None
        draft.overall(
            "warning", "auth", "packets without authentication are not supported: CBC ciphers are not offered"
        )
        if not offered:
            draft.overall("error", "data-ciphers", "no cipher is left that authenticates by itself")
    draft.values.update(
        data_ciphers=tuple(offered),
        data_ciphers_fallback=draft.fallback if "data-ciphers-fallback" in draft.lines else cipher,
        cipher=cipher,
    )


def _check_compression(draft: Draft) -> None:
    if draft.compresses is not None and not draft.values.get("receive_compressed"):
        draft.overall(
            "warning",
            draft.compresses,
            "nothing is ever compressed (compression helps those who listen); only the framing is spoken, "
            "and packets that the server compresses are dropped unless allow-compression says asym",
        )


def _check_sizes(draft: Draft) -> None:
    general = draft.values.get("fragment")
    if any(
        remote.is_tcp and dict(remote.settings).get("fragment", general) is not None
        for remote in draft.values["remotes"]
    ):
        draft.overall("error", "fragment", "fragments exist only over UDP")


def _check_float(draft: Draft) -> None:
    general = draft.values.get("floating", False)
    floating = [remote for remote in draft.values["remotes"] if dict(remote.settings).get("floating", general)]
    if floating and all(remote.is_tcp or remote.proxy is not None for remote in floating):
        draft.overall("warning", "float", "it does nothing over TCP or through a proxy")


def _check_tls(draft: Draft) -> None:
    values = draft.values
    highest = values.get("tls_version_max")
    if highest is None:
        return
    lowest = values.get("tls_version_min")
    if lowest is None:
        # openvpn 2.6: 1.2, or the highest allowed if that is lower.
        values["tls_version_min"] = min("1.2", highest)
    elif highest < lowest:
        draft.overall("error", "tls-version-max", "it is lower than tls-version-min")

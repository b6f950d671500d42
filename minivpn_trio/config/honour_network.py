"""Directives about where the server is and how it is reached, timers, and the push."""

from __future__ import annotations

import math
from ipaddress import IPv6Address

from .draft import BadValue, Draft, Handler, RemoteDraft, number
from .grammar import Statement
from .model import Proto
from .pushed import parse_parameters

__all__ = ["HANDLERS", "PEER_INFO_ALWAYS", "host_name"]

_DAY = 86400
_LONG = 10 * 365 * _DAY

#: Every spelling of a client's protocol (reference: socket.c, proto_names).
_PROTOS: dict[str, Proto] = {
    "udp": "udp",
    "udp4": "udp4",
    "udp6": "udp6",
    "tcp": "tcp",
    "tcp4": "tcp4",
    "tcp6": "tcp6",
    "tcp-client": "tcp",
    "tcp4-client": "tcp4",
    "tcp6-client": "tcp6",
}


def _proto_of(name: str) -> Proto:
    if name.startswith("tcp") and name.endswith("-server"):
        raise BadValue("this is a client, it cannot wait for connections (tcp-server)")
    try:
        return _PROTOS[name]
    except KeyError:
        raise BadValue("udp, tcp-client or one of their forms with 4 or 6 is wanted") from None


def host_name(name: str) -> str:
    """``name`` if it can be a host's name or address. Raises BadValue."""
    usable = 0 < len(name) <= 255 and all(c.isalnum() or c in ".-_:%" for c in name)
    if not usable:
        brackets = "; an IPv6 address stands without brackets" if name.startswith("[") else ""
        raise BadValue("a host name or an address is wanted" + brackets)
    if ":" in name:
        try:
            IPv6Address(name)
        except ValueError:
            raise BadValue("a port stands behind the host, after a blank; ':' is only for IPv6 addresses") from None
    return name


def _remote(draft: Draft, statement: Statement) -> None:
    values = statement.values
    remote = RemoteDraft(host_name(values[0]), line=statement.line)
    if len(values) > 1:
        remote.port = number(values, 1, 1, 65535)
    if len(values) > 2:
        remote.proto = _proto_of(values[2])
    target = draft.connection
    if target is None:
        draft.remotes.append(remote)
        return
    # In a block the last one counts, and it replaces only what it names.
    target.host, target.line = remote.host, remote.line
    target.port = remote.port if remote.port is not None else target.port
    target.proto = remote.proto or target.proto


def _defaults(draft: Draft) -> RemoteDraft:
    return draft.connection if draft.connection is not None else draft.default_remote


def _port(draft: Draft, statement: Statement) -> None:
    _defaults(draft).port = number(statement.values, 0, 1, 65535)


def _proto(draft: Draft, statement: Statement) -> None:
    _defaults(draft).proto = _proto_of(statement.values[0])


def _proto_force(draft: Draft, statement: Statement) -> None:
    draft.forced_transport = "tcp" if _proto_of(statement.values[0]).startswith("tcp") else "udp"


def _local(draft: Draft, statement: Statement) -> None:
    draft.values["local_host"] = host_name(statement.values[0])


def _lport(draft: Draft, statement: Statement) -> None:
    draft.values["local_port"] = number(statement.values, 0, 0, 65535)


def _bind_dev(draft: Draft, statement: Statement) -> None:
    name = statement.values[0]
    # Reference for what is a name: Linux, dev_valid_name.
    if not 0 < len(name.encode("utf-8", "replace")) < 16 or not name.isprintable() or set(name) & set(" /:"):
        raise BadValue("the name of a network interface is wanted")
    draft.values["bind_device"] = name


def _flag(field: str) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        draft.values[field] = True

    return handle


def _nothing(draft: Draft, statement: Statement) -> None:
    """What it says is so anyway, or follows from its being there."""


def _seconds(field: str, *, low: int = 0, high: int = _LONG) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        draft.values[field] = float(number(statement.values, 0, low, high))

    return handle


def _integer(field: str, *, low: int = 0, high: int = 2**63 - 1) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        draft.values[field] = number(statement.values, 0, low, high)

    return handle


def _connect_retry(draft: Draft, statement: Statement) -> None:
    retry = number(statement.values, 0, 0, 0xFFFF)
    if retry == 0:
        draft.warn(statement, "a server that refuses would be asked without a pause: it is 1 second at least")
    draft.values["connect_retry"] = float(retry)
    if len(statement.values) > 1:
        draft.values["connect_retry_max_delay"] = float(max(number(statement.values, 1, 0, _LONG), retry))
    else:
        draft.values["connect_retry_max_delay"] = float(max(300, retry))


def _connect_retry_max(draft: Draft, statement: Statement) -> None:
    if statement.values[0] == "infinite":
        return
    rounds = number(statement.values, 0, 0, 2**31)
    draft.values["connect_retry_max"] = rounds or None


def _resolv_retry(draft: Draft, statement: Statement) -> None:
    infinite = statement.values[0] == "infinite"
    draft.values["resolv_retry"] = math.inf if infinite else float(number(statement.values, 0, 0, _LONG))


def _buffer(field: str) -> Handler:
    def handle(draft: Draft, statement: Statement) -> None:
        draft.values[field] = number(statement.values, 0, 0, 1 << 30)

    return handle


def _reneg_sec(draft: Draft, statement: Statement) -> None:
    draft.values["reneg_sec"] = float(number(statement.values, 0, 0, _LONG))
    if len(statement.values) > 1:
        number(statement.values, 1, 0, _LONG)


def _inactive(draft: Draft, statement: Statement) -> None:
    draft.values["inactive"] = float(number(statement.values, 0, 0, _LONG))
    draft.values["inactive_bytes"] = number(statement.values, 1, 0, 2**63 - 1) if len(statement.values) > 1 else 0


def _explicit_exit_notify(draft: Draft, statement: Statement) -> None:
    draft.values["explicit_exit_notify"] = number(statement.values, 0, 0, 100) if statement.values else 1


def _keepalive(draft: Draft, statement: Statement) -> None:
    interval = number(statement.values, 0, 1, _DAY)
    timeout = number(statement.values, 1, 1, _DAY)
    if timeout < 2 * interval:
        raise BadValue("the second number must be at least twice the first")
    draft.values.update(ping=float(interval), ping_restart=float(timeout), ping_exit=0.0)


def _ping(draft: Draft, statement: Statement) -> None:
    draft.values["ping"] = float(number(statement.values, 0, 0, _DAY))


def _ping_restart(draft: Draft, statement: Statement) -> None:
    # Each of the two replaces the other (reference: options.c, ping_rec_timeout_action).
    draft.values.update(ping_restart=float(number(statement.values, 0, 0, _DAY)), ping_exit=0.0)


def _ping_exit(draft: Draft, statement: Statement) -> None:
    draft.values.update(ping_exit=float(number(statement.values, 0, 0, _DAY)), ping_restart=0.0)


def _replay_window(draft: Draft, statement: Statement) -> None:
    draft.values["replay_window"] = number(statement.values, 0, 0, 65536)
    if len(statement.values) > 1:
        draft.values["replay_time"] = float(number(statement.values, 1, 0, 600))


# -- the push --------------------------------------------------------------------------------


def _pull_filter(draft: Draft, statement: Statement) -> None:
    action, text = statement.values
    if action not in ("accept", "ignore", "reject"):
        raise BadValue("accept, ignore or reject is wanted")
    draft.pull_filters.append((action, text))


def _local_option(draft: Draft, statement: Statement) -> None:
    option = (statement.name, *statement.values)
    draft.local_options.append(option)
    for text in parse_parameters([option]).warnings:
        reason = text.partition("(")[2].partition(")")[0] or "it is not understood"
        draft.warn(statement, f"it has no effect: {reason}")


PEER_INFO_ALWAYS = ("IV_GUI_VER", "IV_SSO")
#: Only together with push-peer-info, and only what the profile says: nothing is looked up (reference: ssl.c,
#: push_peer_info).
_PEER_INFO_DETAILS = ("IV_PLAT_VER", "IV_HWADDR", "IV_SSL")


def _setenv(draft: Draft, statement: Statement) -> None:
    name = statement.values[0]
    value = statement.values[1] if len(statement.values) > 1 else ""
    match name:
        case "GENERIC_CONFIG":
            raise BadValue("this is a generic profile, made to be completed before it is used")
        case "PUSH_PEER_INFO":
            draft.values["push_peer_info"] = True
        case "REMOTE_RANDOM_HOSTNAME":
            draft.values["remote_random_hostname"] = True
        case "SERVER_POLL_TIMEOUT":
            draft.values["connect_timeout"] = float(number(statement.values, 1, 1, _DAY))
        case _ if name.startswith("UV_") or name in (*PEER_INFO_ALWAYS, *_PEER_INFO_DETAILS):
            if value.isprintable() and "\n" not in value:
                draft.peer_info[name] = value


HANDLERS: dict[str, Handler] = {
    "remote": _remote,
    "port": _port,
    "rport": _port,
    "proto": _proto,
    "proto-force": _proto_force,
    "local": _local,
    "lport": _lport,
    "bind-dev": _bind_dev,
    "float": _flag("floating"),
    "mark": _integer("mark", high=0xFFFFFFFF),
    "bind": _nothing,
    "nobind": _nothing,
    "remote-random": _flag("remote_random"),
    "remote-random-hostname": _flag("remote_random_hostname"),
    "connect-retry": _connect_retry,
    "connect-retry-max": _connect_retry_max,
    "resolv-retry": _resolv_retry,
    "connect-timeout": _seconds("connect_timeout", low=1),
    "server-poll-timeout": _seconds("connect_timeout", low=1),
    "sndbuf": _buffer("sndbuf"),
    "rcvbuf": _buffer("rcvbuf"),
    "hand-window": _seconds("hand_window", low=1),
    "tran-window": _seconds("tran_window"),
    "tls-timeout": _seconds("tls_timeout", low=1, high=_DAY),
    "reneg-sec": _reneg_sec,
    "reneg-bytes": _integer("reneg_bytes"),
    "reneg-pkts": _integer("reneg_packets"),
    "replay-window": _replay_window,
    "keepalive": _keepalive,
    "ping": _ping,
    "ping-restart": _ping_restart,
    "ping-exit": _ping_exit,
    "inactive": _inactive,
    "session-timeout": _seconds("session_timeout"),
    "explicit-exit-notify": _explicit_exit_notify,
    "pull-filter": _pull_filter,
    "route-nopull": _flag("route_nopull"),
    "push-peer-info": _flag("push_peer_info"),
    "setenv": _setenv,
    "setenv-safe": _nothing,
    "client": _nothing,
    "pull": _nothing,
    "tls-client": _nothing,
    "ignore-unknown-option": _nothing,
    **dict.fromkeys(
        (
            "topology",
            "route",
            "route-ipv6",
            "route-metric",
            "ifconfig",
            "ifconfig-ipv6",
            "route-gateway",
            "route-ipv6-gateway",
            "redirect-gateway",
            "redirect-private",
            "dhcp-option",
            "dns",
            "block-ipv6",
            "block-outside-dns",
        ),
        _local_option,
    ),
}

"""PUSH_REPLY as data: the pieces put together, each option parsed and bounded.

Nothing here decides anything: ``config/push.py`` merges what is found here
with the profile. An option that is nonsense is left out with a warning and
never repeated in it, since it comes from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from ..errors import ConnectError, Stage
from .lexer import LexError, split_line
from .push_options import HANDLERS, REFUSED, UNUSED, Nonsense, PushDraft
from .tunnel_info import DNSServer, Route

__all__ = ["MAX_OPTION", "MAX_OPTIONS", "MAX_PUSH", "PushAssembler", "PushedOptions", "parse_parameters", "parse_push"]

#: Characters in one option (reference: options.h, OPTION_PARM_SIZE).
MAX_OPTION = 256
#: Characters in all messages of one push together.
MAX_PUSH = 64 * 1024
#: Options in one push.
MAX_OPTIONS = 8192


class PushAssembler:
    """Puts the messages of one push together (``push-continuation``).

    ``word`` is what each begins with: ``PUSH_REPLY`` or ``PUSH_UPDATE``.
    """

    def __init__(self, word: str = "PUSH_REPLY") -> None:
        self._word = word
        self._options: list[str] = []
        self._size = 0

    def add(self, message: str) -> list[str] | None:
        """Take one message, its first word and its commas included.

        Returns all options of the push once it is complete, and starts over;
        None when the message announced another one. Raises ConnectError when
        the push grows beyond 64 KiB or 8192 options, or begins with another word.
        """
        head, _, body = message.partition(",")
        if head != self._word:
            raise ConnectError(f"the message is no {self._word}", stage=Stage.PUSH)
        self._size += len(message)
        options = [option for option in body.split(",") if option]
        if self._size > MAX_PUSH or len(self._options) + len(options) > MAX_OPTIONS:
            self._reset()
            raise ConnectError("the server pushes more options than anybody needs", stage=Stage.PUSH)
        more = False
        for option in options:
            name, _, value = option.strip().partition(" ")
            if name == "push-continuation":
                more = value.strip() == "2"
            else:
                self._options.append(option)
        if more:
            return None
        complete = self._options
        self._reset()
        return complete

    def _reset(self) -> None:
        self._options = []
        self._size = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedOptions:
    """What a server pushed, parsed. None and empty: not pushed. Times are seconds, sizes bytes."""

    #: Our address and, by topology, the netmask (subnet) or the peer's address (net30, p2p).
    ifconfig: tuple[IPv4Address, IPv4Address] | None = None
    ifconfig_ipv6: IPv6Interface | None = None
    ifconfig_ipv6_remote: IPv6Address | None = None
    topology: str | None = None
    route_gateway: IPv4Address | None = None
    route_ipv6_gateway: IPv6Address | None = None
    routes: tuple[IPv4Network, ...] = ()
    routes_ipv6: tuple[IPv6Network, ...] = ()
    route_table: tuple[Route, ...] = ()
    #: Metric of routes that name none.
    route_metric: int | None = None
    #: Flags of redirect-gateway; a bare one is ``("",)`` so that it can be told from none.
    redirect_gateway: tuple[str, ...] = ()
    redirect_private: tuple[str, ...] = ()
    block_flags: tuple[str, ...] = ()
    #: In the order of preference: servers of ``dns`` by priority, then those of ``dhcp-option``.
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    dns_servers: tuple[DNSServer, ...] = ()
    #: Those of ``dhcp-option`` alone.
    dhcp_dns: tuple[IPv4Address | IPv6Address, ...] = ()
    search_domains: tuple[str, ...] = ()

    tun_mtu: int | None = None
    mssfix: int | None = None
    #: What ``mssfix`` counts: ``mtu`` (outer headers too), ``fixed`` (the inner packet), ``plain``; ``default``: it was
    #: pushed without a size; None: it was not pushed.
    mssfix_form: str | None = None
    ping: float | None = None
    ping_restart: float | None = None
    ping_exit: float | None = None
    inactive: float | None = None
    inactive_bytes: int = 0
    session_timeout: float | None = None
    reneg_sec: float | None = None
    explicit_exit_notify: int | None = None

    peer_id: int | None = None
    #: Upper case.
    cipher: str | None = None
    #: ``tls-ekm`` when ``key-derivation`` names it; protocol-flags are beside it.
    key_derivation: str | None = None
    protocol_flags: frozenset[str] = frozenset()
    #: Our name for the framing (``TunnelConfig.compression``).
    compression: str | None = None
    #: The server may compress what it sends.
    compresses: bool = False
    auth_token: str | None = field(default=None, repr=False)
    #: Decoded.
    auth_token_user: str | None = field(default=None, repr=False)

    #: Names of options that are not known, not used or not allowed, each once.
    ignored: tuple[str, ...] = ()
    #: What is wrong with the push, in words, without its values.
    warnings: tuple[str, ...] = ()
    #: An option had a value that makes no sense, or could not be read at all.
    unusable: bool = False
    #: The options as they came: needed to apply the profile's ``pull-filter``.
    raw: tuple[str, ...] = field(default=(), repr=False)


def parse_push(options: Sequence[str]) -> PushedOptions:
    """Parse the options of a push, as ``PushAssembler`` returns them.

    The last of several options of one kind counts, except for lists. Never
    raises: what cannot be used becomes a warning.
    """
    raw = tuple(options)
    parsed: list[list[str]] = []
    complaints: list[str] = []
    for option in raw:
        if len(option) > MAX_OPTION:
            complaints.append("an option is longer than 256 characters")
            continue
        try:
            parameters = split_line(option)
        except LexError as error:
            complaints.append(f"an option cannot be read: {error}")
            continue
        if parameters:
            parsed.append(parameters)
    return parse_parameters(parsed, raw=raw, warnings=complaints)


def parse_parameters(
    options: Sequence[Sequence[str]], *, raw: tuple[str, ...] = (), warnings: Sequence[str] = ()
) -> PushedOptions:
    """Parse options that are cut into parameters already; see ``parse_push``."""
    draft = PushDraft()
    draft.unusable = bool(warnings)
    for text in warnings:
        draft.warn(text)
    for name, *values in options:
        handler = HANDLERS.get(name)
        if handler is None:
            draft.ignored.setdefault(name if name.isprintable() and len(name) <= 64 else "(unreadable)")
            if name in REFUSED:
                draft.warn(f"{name} was pushed, which no server may decide; it was not applied")
            elif name not in UNUSED:
                draft.warn("an option that this client does not know was pushed and ignored")
            continue
        try:
            handler(draft, values)
        except (Nonsense, AddressValueError) as error:
            reason = str(error) if isinstance(error, Nonsense) else "not an address"
            draft.warn(f"{name} was pushed with a value that makes no sense ({reason}); it was ignored")
            draft.ignored.setdefault(name)
            draft.unusable = True
    return _finished(draft, raw)


def _finished(draft: PushDraft, raw: tuple[str, ...]) -> PushedOptions:
    servers = [server for _, server in sorted(draft.dns_servers.items()) if server.addresses]
    dns = [address for server in servers for address, _ in server.addresses]
    return PushedOptions(
        **draft.values,  # type: ignore[arg-type]
        routes=tuple(draft.routes),
        routes_ipv6=tuple(draft.routes_ipv6),
        route_table=tuple(draft.route_table),
        redirect_gateway=tuple(dict.fromkeys(draft.redirect)),
        redirect_private=tuple(dict.fromkeys(draft.redirect_private)),
        dns_servers=tuple(servers),
        block_flags=tuple(dict.fromkeys(draft.block)),
        dns=tuple(dict.fromkeys([*dns, *draft.dhcp_dns])),
        dhcp_dns=tuple(dict.fromkeys(draft.dhcp_dns)),
        search_domains=tuple(dict.fromkeys([*draft.domains, *draft.dhcp_domains])),
        protocol_flags=frozenset(draft.flags),
        ignored=tuple(draft.ignored),
        warnings=tuple(draft.warnings),
        unusable=draft.unusable,
        raw=raw,
    )

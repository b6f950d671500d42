"""TunResolver: names to addresses, by the resolvers that the server pushed, inside the tunnel and nowhere else.

Which server is asked for which name is said in name_servers.py, how one is asked in dns_client.py. A and AAAA are asked
at the same time, for the families that
the tunnel has an address of. Answers are kept for their time to live, an hour
at most, as long as the tunnel has the same servers.

Numeric hosts and ``localhost`` (RFC 6761) need no query, nor do the names that the
application gave addresses itself (``hosts``). The hosts file and
nsswitch of the machine are not consulted; ``parse_hosts`` reads such a file for who wants it.

Sources: RFC 1034, RFC 1035, RFC 6724 (order of addresses), RFC 8305 (3: how long to wait for the other family),
resolv.conf(5) for ndots.
"""

from __future__ import annotations

import ipaddress
import math
import socket as stdlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import idna
import trio

from ..config.tunnel_info import TunnelInfo
from ..packet.ids import RandomBytes
from .address_order import ordered
from .dns_client import DNSClient, NobodyAnswered
from .name_cache import NameCache
from .name_servers import NameServers
from .sockets import TunSocket

if TYPE_CHECKING:
    import dns.exception
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype

__all__ = ["AddressInfo", "TunResolver", "parse_hosts"]

#: (family, type, proto, canonical name, socket address), as ``socket.getaddrinfo`` gives.
AddressInfo = tuple[stdlib.AddressFamily, stdlib.SocketKind, int, str, tuple[Any, ...]]

#: How long the other family's answer is waited for when one has brought addresses: some servers never answer AAAA.
STRAGGLER_TIMEOUT = 2.0
#: The longest that anybody should believe that a name does not exist (RFC 2308, 5, is more generous), seconds.
_NEGATIVE_TTL = 60
#: Queries that may follow CNAMEs out of a response, for one name.
_MAX_ALIASES = 8
#: resolv.conf's ndots: a name with so many dots is tried as it is before the search domains.
_NDOTS = 1
_MAX_SEARCH = 6

_TYPES = {
    stdlib.SOCK_STREAM: (stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP),
    stdlib.SOCK_DGRAM: (stdlib.SOCK_DGRAM, stdlib.IPPROTO_UDP),
}

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _need_dnspython() -> None:
    """Import what only names need: a tenth of the time that importing this package takes, and many programs
    dial addresses."""
    global dns
    import dns.exception
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdataclass
    import dns.rdatatype


class _Found(NamedTuple):
    """The addresses of a name, and its canonical name; ``exists`` is False for NXDOMAIN."""

    canonical: str
    addresses: tuple[Ip, ...]
    exists: bool = True


class TunResolver:
    """Resolves names for one tunnel.

    ``open_socket(family, type)`` makes the sockets, ``info`` says what the
    tunnel has and who its resolvers are, asked anew for each call. ``hosts``
    are names that need no query. Fits ``trio.abc.HostnameResolver``.
    """

    def __init__(
        self,
        open_socket: Callable[[int, int], TunSocket],
        info: Callable[[], TunnelInfo],
        rng: RandomBytes,
        hosts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._hosts = {
            name.lower().rstrip("."): tuple(ipaddress.ip_address(address) for address in addresses)
            for name, addresses in (hosts or {}).items()
        }
        self._cache: NameCache[_Found] = NameCache()
        self._client = DNSClient(open_socket, rng)
        self._info = info
        self._pushed: object = None
        self._known: NameServers = NameServers(info())

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
        *,
        straggler_timeout: float = STRAGGLER_TIMEOUT,
    ) -> list[AddressInfo]:
        """What ``socket.getaddrinfo`` would return, found out inside the tunnel.

        When one family's addresses are there, the other's are waited for ``straggler_timeout`` seconds
        at most. Checkpoints; cancel-safe. Takes about 15 s at worst with one silent
        server. Raises socket.gaierror: EAI_NONAME (no such name, or no
        resolver was pushed), EAI_NODATA (the name has no address that fits), EAI_AGAIN (no server
        answered), EAI_FAMILY, EAI_SOCKTYPE, EAI_SERVICE.
        """
        await trio.lowlevel.checkpoint()
        if family not in (stdlib.AF_UNSPEC, stdlib.AF_INET, stdlib.AF_INET6):
            raise _gaierror(stdlib.EAI_FAMILY)
        kinds = [
            kind for wanted, kind in _TYPES.items() if type in (0, wanted) and proto in (0, kind[1])
        ]  # fmt: skip
        if not kinds:
            raise _gaierror(stdlib.EAI_SOCKTYPE)
        number = _service(port, kinds)
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        found = await self._find(name, family, flags, straggler_timeout)
        addresses = [ip for ip in found.addresses if _fits(ip, family)]
        if not addresses:
            # Linux has a word of its own for a name that has only other addresses.
            raise _gaierror(getattr(stdlib, "EAI_NODATA", stdlib.EAI_NONAME) if name else stdlib.EAI_NONAME)
        result: list[AddressInfo] = []
        for ip in addresses:
            for kind, protocol in kinds:
                canonical = found.canonical if flags & stdlib.AI_CANONNAME and not result else ""
                result.append((_family(ip), kind, protocol, canonical, _sockaddr(ip, number)))
        return result

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        """(host, service) of a numeric socket address, by a PTR query unless NI_NUMERICHOST is in ``flags``.

        Checkpoints; cancel-safe. Raises socket.gaierror: EAI_NONAME if NI_NAMEREQD is in ``flags`` and there is none.
        """
        await trio.lowlevel.checkpoint()
        ip = ipaddress.ip_address(sockaddr[0].partition("%")[0])
        name = str(ip)
        if not flags & stdlib.NI_NUMERICHOST:
            _need_dnspython()
            question = dns.name.from_text(ip.reverse_pointer)
            try:
                response = await self._ask(question, dns.rdatatype.PTR)
                answer = response.resolve_chaining().answer
                name = str(next(iter(answer)).target).rstrip(".") if answer else name
            except (stdlib.gaierror, dns.exception.DNSException):
                pass
            if name == str(ip) and flags & stdlib.NI_NAMEREQD:
                raise _gaierror(stdlib.EAI_NONAME)
        return name, str(sockaddr[1])

    def forget_streams(self) -> None:
        """The tunnel changed: connections to name servers are not used again."""
        self._client.forget_streams()

    def close(self) -> None:
        """The tunnel is gone: close the connections to name servers. Idempotent, never blocks."""
        self._client.close()

    # --- names -------------------------------------------------------------------------------------------------------

    async def _find(self, name: str | None, family: int, flags: int, straggler_timeout: float) -> _Found:
        """The addresses of ``name``, best first."""
        if not name:
            passive = bool(flags & stdlib.AI_PASSIVE)
            own: tuple[Ip, ...] = (ipaddress.IPv6Address("::"), ipaddress.IPv4Address("0.0.0.0"))
            return _Found("", own if passive else _LOOPBACK)
        with suppress(ValueError):
            literal = ipaddress.ip_address(name.partition("%")[0])
            if not _fits(literal, family):
                raise _gaierror(getattr(stdlib, "EAI_ADDRFAMILY", stdlib.EAI_NONAME))
            return _Found(name, (literal,))
        if flags & stdlib.AI_NUMERICHOST:
            raise _gaierror(stdlib.EAI_NONAME)
        if name.removesuffix(".").lower().rpartition(".")[2] == "localhost":
            return _Found("localhost", _LOOPBACK)
        given = self._hosts.get(name.lower().rstrip("."))
        if given is not None:
            return _Found(name, given)
        empty: _Found | None = None
        for candidate in self._candidates(name):
            found = await self._addresses(candidate, family, straggler_timeout)
            if found.addresses:
                return found
            if found.exists and empty is None:
                empty = found
        if empty is None:
            raise _gaierror(stdlib.EAI_NONAME)
        return empty

    def _candidates(self, name: str) -> list[dns.name.Name]:
        """The absolute names that ``name`` may mean, in the order to try them."""
        _need_dnspython()
        try:
            ascii_name = name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
            # A label may not be empty; a name may be 255 octets long.
            asked = dns.name.from_text(ascii_name, None)
            if asked.is_absolute():
                return [asked]
            absolute = [asked.concatenate(dns.name.root)]
        except (idna.IDNAError, dns.exception.DNSException, UnicodeError):
            raise _gaierror(stdlib.EAI_NONAME) from None
        if self._servers().has_own(asked.labels):
            return absolute
        searched = []
        for domain in self._info().search_domains[:_MAX_SEARCH]:
            with suppress(dns.exception.DNSException, UnicodeError):
                searched.append(asked.concatenate(dns.name.from_text(domain)))
        return absolute + searched if len(asked.labels) > _NDOTS else searched + absolute

    async def _addresses(self, name: dns.name.Name, family: int, straggler_timeout: float) -> _Found:
        """A and AAAA of ``name`` at the same time, in the order of RFC 6724."""
        info = self._info()
        wanted = []
        if info.ipv4 is not None and family in (stdlib.AF_UNSPEC, stdlib.AF_INET):
            wanted.append(dns.rdatatype.A)
        if info.ipv6 is not None and family in (stdlib.AF_UNSPEC, stdlib.AF_INET6):
            wanted.append(dns.rdatatype.AAAA)
        if not wanted:
            raise _gaierror(getattr(stdlib, "EAI_ADDRFAMILY", stdlib.EAI_NONAME))
        results: dict[dns.rdatatype.RdataType, _Found] = {}
        failures: list[stdlib.gaierror] = []

        async def one(kind: dns.rdatatype.RdataType) -> None:
            try:
                results[kind] = await self._follow(name, kind)
            except stdlib.gaierror as exc:
                failures.append(exc)
            else:
                if results[kind].addresses:
                    nursery.cancel_scope.deadline = trio.current_time() + straggler_timeout

        async with trio.open_nursery() as nursery:
            for kind in wanted:
                nursery.start_soon(one, kind)
        own = [interface.ip for interface in (info.ipv4, info.ipv6) if interface is not None]
        addresses = tuple(
            ordered((ip for kind in wanted if kind in results for ip in results[kind].addresses), own)
        )
        if not addresses and failures:
            raise failures[0]
        found = list(results.values())
        return _Found(found[0].canonical, addresses, any(each.exists for each in found))

    async def _follow(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> _Found:
        """The addresses of one kind, from the cache or asked for."""
        servers = self._servers()
        found = self._cache.get((name, kind), trio.current_time())
        if found is None:
            found, ttl = await self._follow_aliases(name, kind)
            if self._servers() is servers:
                self._cache.put((name, kind), found, ttl, trio.current_time())
        return found

    async def _follow_aliases(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> tuple[_Found, float]:
        """Addresses and their time to live, following aliases that a response does not follow itself."""
        ttl = math.inf
        for _ in range(_MAX_ALIASES):
            response = await self._ask(name, kind)
            try:
                chain = response.resolve_chaining()
            except dns.exception.DNSException:
                raise _gaierror(stdlib.EAI_FAIL) from None
            canonical = chain.canonical_name
            text = canonical.to_text(omit_final_dot=True)
            ttl = min(ttl, chain.minimum_ttl)
            if chain.answer is not None:
                return _Found(text, tuple(ipaddress.ip_address(record.address) for record in chain.answer)), ttl
            if response.rcode() == dns.rcode.NXDOMAIN or canonical == name:
                # Without a SOA nobody said how long that holds (RFC 2308, 5).
                says = any(record.rdtype == dns.rdatatype.SOA for record in response.authority)
                exists = response.rcode() != dns.rcode.NXDOMAIN
                return _Found(text, (), exists), min(ttl, _NEGATIVE_TTL) if says else 0.0
            name = canonical
        raise _gaierror(stdlib.EAI_FAIL)

    # --- queries -----------------------------------------------------------------------------------------------------

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        """The first usable response of those who are asked for ``name``. Raises gaierror."""
        servers = self._servers().for_name(name.labels[:-1])
        if not servers:
            raise stdlib.gaierror(stdlib.EAI_NONAME, "the server of the tunnel pushed no resolver for this name")
        try:
            return await self._client.ask(servers, name, kind)
        except NobodyAnswered as exc:
            failure = _gaierror(stdlib.EAI_AGAIN)
            for note in getattr(exc, "__notes__", ()):
                failure.add_note(note)
            raise failure from None

    def _servers(self) -> NameServers:
        """Those that the tunnel has now. Answers of others are forgotten."""
        info = self._info()
        pushed = (info.dns, info.dhcp_dns, info.dns_servers)
        if pushed != self._pushed:
            self._cache.clear()
            self._client.forget_streams()
            self._pushed, self._known = pushed, NameServers(info)
        return self._known


def parse_hosts(text: str) -> dict[str, list[str]]:
    """The names of a hosts file and their addresses, for ``hosts``. Lines that make no sense are left out."""
    hosts: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            continue
        for name in names:
            hosts.setdefault(name.lower().rstrip("."), []).append(str(ip))
    return hosts


_LOOPBACK: tuple[Ip, ...] = (ipaddress.IPv6Address("::1"), ipaddress.IPv4Address("127.0.0.1"))


def _service(port: bytes | str | int | None, kinds: list[tuple[stdlib.SocketKind, int]]) -> int:
    """The number of a port or of a service's name. The table of services is the machine's."""
    if port is None:
        return 0
    if isinstance(port, bytes):
        port = port.decode("ascii", "replace")
    if isinstance(port, str):
        if not port.isascii() or not port.isdigit():
            try:
                return stdlib.getservbyname(port, "tcp" if kinds[0][0] == stdlib.SOCK_STREAM else "udp")
            except (OSError, ValueError):
                # ValueError: with what no name can have in it.
                raise _gaierror(stdlib.EAI_SERVICE) from None
        # Python refuses to read thousands of digits, zeros as well.
        port = port.lstrip("0") or "0"
        if len(port) > 5:
            raise _gaierror(stdlib.EAI_SERVICE)
        port = int(port)
    if not 0 <= port <= 65535:
        raise _gaierror(stdlib.EAI_SERVICE)
    return port


def _family(ip: Ip) -> stdlib.AddressFamily:
    return stdlib.AF_INET if ip.version == 4 else stdlib.AF_INET6


def _fits(ip: Ip, family: int) -> bool:
    return family in (stdlib.AF_UNSPEC, _family(ip))


def _sockaddr(ip: Ip, port: int) -> tuple[Any, ...]:
    return (str(ip), port) if ip.version == 4 else (str(ip), port, 0, 0)


_GAI_TEXTS = {
    stdlib.EAI_NONAME: "Name or service not known",
    stdlib.EAI_AGAIN: "Temporary failure in name resolution",
    stdlib.EAI_FAIL: "Non-recoverable failure in name resolution",
    stdlib.EAI_FAMILY: "ai_family not supported",
    stdlib.EAI_SOCKTYPE: "ai_socktype not supported",
    stdlib.EAI_SERVICE: "Servname not supported for ai_socktype",
}
_GAI_TEXTS.setdefault(getattr(stdlib, "EAI_NODATA", stdlib.EAI_NONAME), "No address associated with hostname")
_GAI_TEXTS.setdefault(getattr(stdlib, "EAI_ADDRFAMILY", stdlib.EAI_NONAME), "Address family for hostname not supported")


def _gaierror(number: int) -> stdlib.gaierror:
    return stdlib.gaierror(number, _GAI_TEXTS.get(number, "Name resolution failed"))

"""Directives about what stands between us and the server: proxies, obfs4, scramble.

openvpn's meaning of each is in options.c and proxy.c of 2.6.14; ``proxy-obfs4``
is minivpn's; ``scramble`` is that of Tunnelblick's patch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import ConfigError
from .credentials import Credentials
from .draft import BadValue, Draft, Handler, RemoteDraft, number
from .grammar import Statement
from .honour_network import host_name
from .model import Remote
from .proxy import HTTPProxy, Obfs4Bridge, Proxy, Scramble, SocksProxy

__all__ = ["HANDLERS", "ProxyDraft", "apply_proxies"]

#: What openvpn allows (proxy.h, MAX_CUSTOM_HTTP_HEADER).
_MAX_HEADERS = 10
_LONGEST_CREDENTIAL = 4096
#: RFC 9110, 5.1 and 5.5: a token; visible characters with blanks between them.
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}"
_HEADER_VALUE = r"([\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?)?"


@dataclass(slots=True)
class ProxyDraft:
    """What was said of proxies so far, in one ``<connection>`` or for all."""

    http: tuple[str, int] | None = None
    socks: SocksProxy | None = None
    obfs4: Obfs4Bridge | None = None
    auth: Literal["auto", "basic", "digest"] = "auto"
    credentials: Credentials | None = field(default=None, repr=False)
    user_agent: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    scramble: Scramble | None = None

    def proxy(self) -> Proxy | None:
        """The one proxy that all this describes. Raises BadValue."""
        named = [what for what in (self.http, self.socks, self.obfs4) if what is not None]
        if len(named) > 1:
            raise BadValue("only one of http-proxy, socks-proxy and proxy-obfs4 can be used")
        if self.http is not None:
            return HTTPProxy(*self.http, self.credentials, self.auth, self.user_agent, self.headers)
        return self.socks or self.obfs4


def _here(draft: Draft) -> ProxyDraft:
    where: RemoteDraft = draft.connection if draft.connection is not None else draft.default_remote
    if where.proxy is None:
        where.proxy = ProxyDraft()
    return where.proxy


def _credentials(draft: Draft, statement: Statement, name: str | None) -> Credentials | None:
    """Those in the block of ``statement``, or in the file ``name``; None: noted as needed, or refused."""
    if name is not None:
        if name == "stdin":
            draft.need(statement.name, statement.line)
            return None
        statement = replace(statement, values=(name,))
    data = draft.material(statement)
    if data is None:
        return None
    text = data.decode("utf-8-sig", "replace")
    username, password, *_ = [*(line.rstrip("\r") for line in text.split("\n")), "", ""]
    if max(len(username), len(password)) > _LONGEST_CREDENTIAL or not (username + password).isprintable():
        raise BadValue("the user name or the password cannot be one")
    if not username:
        raise BadValue("a user name on the first line and a password on the second are wanted")
    return Credentials(username, password)


def _http_proxy(draft: Draft, statement: Statement) -> None:
    host, port, *rest = statement.values
    where = _here(draft)
    where.http = (host_name(host), number((port,), 0, 1, 65535))
    if not rest:
        return
    if rest[0] in ("auto", "auto-nct"):
        # "nct": no clear text.
        where.auth = "auto" if rest[0] == "auto" else "digest"
        return
    method = rest[1] if len(rest) > 1 else "basic"
    if method in ("ntlm", "ntlm2"):
        raise BadValue("NTLM is not supported; write basic or auto if the proxy can do that")
    if method not in ("basic", "none"):
        raise BadValue("none or basic is wanted after the file")
    if method == "basic":
        where.auth = "basic"
        where.credentials = _credentials(draft, statement, rest[0]) or where.credentials


def _http_proxy_user_pass(draft: Draft, statement: Statement) -> None:
    name = statement.values[0] if statement.block is None else None
    found = _credentials(draft, statement, name)
    where = _here(draft)
    where.credentials = found or where.credentials


def _http_proxy_option(draft: Draft, statement: Statement) -> None:
    kind, *rest = statement.values
    where = _here(draft)
    if kind == "VERSION" and len(rest) == 1:
        if rest[0] not in ("1.0", "1.1"):
            raise BadValue("1.0 or 1.1 is wanted after VERSION")
        # We speak HTTP/1.1, which a proxy of 1.0 answers in its own version.
    elif kind == "AGENT" and len(rest) == 1:
        where.user_agent = _header_value(rest[0])
    elif kind in ("CUSTOM-HEADER", "EXT1", "EXT2") and rest:
        name, value = rest[0], rest[1] if len(rest) > 1 else None
        if value is None:
            name, colon, value = name.partition(":")
            if not colon:
                raise BadValue("a name and a value are wanted after CUSTOM-HEADER")
        if not re.fullmatch(_HEADER_NAME, name.rstrip(":")):
            raise BadValue("this cannot be the name of a header")
        if name.lower().rstrip(":") in ("content-length", "transfer-encoding", "connection", "upgrade"):
            raise BadValue("this header would change how the request is read")
        if len(where.headers) >= _MAX_HEADERS:
            raise BadValue(f"more than {_MAX_HEADERS} headers")
        where.headers = (*where.headers, (name.rstrip(":"), _header_value(value.strip())))
    else:
        raise BadValue("VERSION, AGENT or CUSTOM-HEADER with a value is wanted")


def _header_value(text: str) -> str:
    if len(text) > 1000 or not re.fullmatch(_HEADER_VALUE, text):
        raise BadValue("this cannot be the value of a header")
    return text


def _socks_proxy(draft: Draft, statement: Statement) -> None:
    host, *rest = statement.values
    port = number(rest, 0, 1, 65535) if rest else 1080
    credentials = _credentials(draft, statement, rest[1]) if len(rest) > 1 else None
    if credentials is not None and not _fits_socks(credentials):
        raise BadValue("a SOCKS proxy takes 1 to 255 ASCII characters each for name and password")
    _here(draft).socks = SocksProxy(host_name(host), port, credentials)


def _fits_socks(credentials: Credentials) -> bool:
    return all(text.isascii() and 0 < len(text) <= 255 for text in (credentials.username, credentials.password))


def _proxy_obfs4(draft: Draft, statement: Statement) -> None:
    try:
        _here(draft).obfs4 = Obfs4Bridge.from_url(statement.values[0])
    except ConfigError as error:
        raise BadValue(error.message) from None


def _scramble(draft: Draft, statement: Statement) -> None:
    kind, *rest = statement.values
    mask = rest[0] if rest else None
    if kind in ("xorptrpos", "reverse"):
        if mask is not None:
            raise BadValue(f"nothing is wanted after {kind}")
    elif kind in ("xormask", "obfuscate"):
        if not mask:
            raise BadValue(f"a mask is wanted after {kind}")
    elif mask is None and kind:
        kind, mask = "xormask", kind  # the patch takes a lone word for the mask
    else:
        raise BadValue("xormask MASK, xorptrpos, reverse or obfuscate MASK is wanted")
    _here(draft).scramble = Scramble(kind, (mask or "").encode())  # type: ignore[arg-type]
    draft.warn(
        statement,
        "openvpn itself does not know it; servers with the XOR patch do. It hides the protocol from a careless "
        "filter and protects nothing",
    )


def apply_proxies(draft: Draft, each: RemoteDraft, remote: Remote) -> Remote:
    """``remote`` with the proxy and the scramble that its draft, or the profile as a whole, says."""
    said = _merged(each.proxy, draft.default_remote.proxy)
    if said is None:
        return remote
    try:
        proxy = said.proxy()
    except BadValue as bad:
        _once(draft, "error", "socks-proxy" if said.socks else "http-proxy", str(bad))
        return remote
    if proxy is not None and not isinstance(proxy, SocksProxy) and not remote.is_tcp:
        name = "proxy-obfs4" if isinstance(proxy, Obfs4Bridge) else "http-proxy"
        _once(draft, "error", name, "it carries only TCP; write proto tcp, if the server listens there")
    if said.http is None and (said.headers or said.user_agent or said.credentials):
        name = "http-proxy-option" if said.headers or said.user_agent else "http-proxy-user-pass"
        _once(draft, "warning", name, "it has no effect without http-proxy")
    return replace(remote, proxy=proxy, scramble=said.scramble)


def _merged(own: ProxyDraft | None, general: ProxyDraft | None) -> ProxyDraft | None:
    """What a ``<connection>`` says, and for the rest what the profile says, before or after it.

    openvpn gives a block only what stands before it. A proxy that was written and is not used
    would show what it should hide, so here the order does not matter.
    """
    if own is None or general is None or own is general:
        return own or general
    named = own if own.http or own.socks or own.obfs4 else general
    return ProxyDraft(
        named.http,
        named.socks,
        named.obfs4,
        named.auth,
        own.credentials or general.credentials,
        own.user_agent or general.user_agent,
        own.headers or general.headers,
        own.scramble or general.scramble,
    )


def _once(draft: Draft, severity: str, directive: str, message: str) -> None:
    if not any(each.directive == directive and each.message == message for each in draft.diagnostics):
        draft.overall(severity, directive, message)


HANDLERS: dict[str, Handler] = {
    "http-proxy": _http_proxy,
    "http-proxy-option": _http_proxy_option,
    "http-proxy-user-pass": _http_proxy_user_pass,
    "socks-proxy": _socks_proxy,
    "proxy-obfs4": _proxy_obfs4,
    "scramble": _scramble,
}

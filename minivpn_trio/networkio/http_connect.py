"""Asking an HTTP proxy for a way to the server: one CONNECT request and its answer, without I/O.

h11 does the protocol, httpx the digest. Each request has a connection of its
own, as with openvpn: after a 407 many proxies close. What a proxy answers is
bounded by h11 (16 KiB for all headers), and nothing of it but the status gets
into an error.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from urllib.request import parse_http_list

import h11

from ..config.credentials import Credentials
from ..config.proxy import HTTPProxy
from ..errors import DropReason, ProtocolError

__all__ = ["HTTPConnect", "answer_challenge", "authority", "basic"]

#: Bytes of status line and headers of an answer.
MAX_ANSWER = 16 * 1024
_DIGESTS = ("MD5", "SHA", "SHA-256", "SHA-512")


def authority(host: str, port: int) -> str:
    """``host:port`` as a CONNECT request names it (RFC 9110, 7.2). Raises UnicodeError."""
    name = host if host.isascii() else host.encode("idna").decode()
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


class HTTPConnect:
    """One request, one answer. After it ``status`` is set, and with 2xx the connection is the server's."""

    def __init__(self, proxy: HTTPProxy, target: str, authorization: str | None = None) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER)
        own = {name.lower() for name, _ in proxy.headers}
        headers = [] if "host" in own else [("Host", target)]
        if proxy.user_agent is not None and "user-agent" not in own:
            headers.append(("User-Agent", proxy.user_agent))
        headers += proxy.headers
        if authorization is not None:
            headers.append(("Proxy-Authorization", authorization))
        self._request = h11.Request(
            method="CONNECT",
            target=target,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        )
        #: None until the answer's headers are complete.
        self.status: int | None = None
        #: What the proxy asks for: the values of Proxy-Authenticate.
        self.challenges: tuple[str, ...] = ()

    def request(self) -> bytes:
        """The bytes to send. Once."""
        return (self._connection.send(self._request) or b"") + (self._connection.send(h11.EndOfMessage()) or b"")

    def handle_data_untrusted(self, data: bytes) -> None:
        """The next bytes of the answer; empty at the end of the stream. Raises ProtocolError."""
        try:
            self._connection.receive_data(data)
            while self.status is None:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                    self.challenges = tuple(
                        value.decode("latin-1") for name, value in event.headers if name == b"proxy-authenticate"
                    )
                elif not isinstance(event, h11.InformationalResponse):
                    raise ProtocolError(DropReason.TOO_SHORT, "the proxy closed the connection without an answer")
        except h11.RemoteProtocolError:
            raise ProtocolError(DropReason.MALFORMED, "what answers there does not speak HTTP") from None

    @property
    def trailing(self) -> bytes:
        """What came behind the answer: already the server's."""
        return self._connection.trailing_data[0]


def basic(credentials: Credentials) -> str:
    """RFC 7617; UTF-8."""
    text = f"{credentials.username}:{credentials.password}"
    return "Basic " + b64encode(text.encode()).decode()


def answer_challenge(
    challenges: Sequence[str], credentials: Credentials, target: str, *, clear_text: bool = True
) -> str | None:
    """The best answer to what a proxy asks for: digest, else basic unless ``clear_text`` is off.

    None: it asks for nothing that we have.
    """
    schemes = [challenge.partition(" ")[0].lower() for challenge in challenges]
    for scheme, challenge in zip(schemes, challenges, strict=True):
        if scheme == "digest":
            answer = _digest(challenge, credentials, target)
            if answer is not None:
                return answer
    return basic(credentials) if clear_text and "basic" in schemes else None


def _digest(challenge: str, credentials: Credentials, target: str) -> str | None:
    """RFC 7616 for CONNECT, where the URI is the authority. None: not one that we can answer."""
    import httpx

    class Authority(httpx.URL):
        """The one URI that is no URL."""

        @property
        def raw_path(self) -> bytes:
            return target.encode()

    pairs = (field.partition("=") for field in parse_http_list(challenge.partition(" ")[2]))
    fields = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    algorithm = fields.get("algorithm", "MD5").upper()
    qop = [each.strip() for each in fields.get("qop", "auth").split(",")]
    if algorithm.removesuffix("-SESS") not in _DIGESTS or "auth" not in qop or not {"realm", "nonce"} <= fields.keys():
        return None
    request = httpx.Request("CONNECT", "http://proxy")
    request.url = Authority(request.url)
    flow = httpx.DigestAuth(credentials.username, credentials.password).auth_flow(request)
    try:
        next(flow)
        flow.send(httpx.Response(401, headers=[("www-authenticate", challenge)], request=request))
        return str(request.headers["Authorization"])
    except (httpx.ProtocolError, LookupError, ValueError, StopIteration):
        return None

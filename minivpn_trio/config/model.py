"""TunnelConfig: everything a tunnel needs to know, however it was written down.

A profile (``config/ovpn.py``) becomes one of these; code can build one
directly. All key material is held as PEM or raw bytes, so nothing is read
from disk after the configuration exists, but for what was revoked meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import ConfigError
from ..packet.replay import DEFAULT_REPLAY_TIME, DEFAULT_REPLAY_WINDOW
from .credentials import Credentials
from .proxy import Obfs4Bridge, Proxy, Scramble, SocksProxy

__all__ = [
    "AEAD_CIPHERS",
    "CBC_CIPHERS",
    "DEFAULT_DATA_CIPHERS",
    "DIGESTS",
    "PROTOS",
    "SMALL_BLOCK_CIPHERS",
    "SMALL_BLOCK_RENEG_BYTES",
    "ControlWrapKind",
    "Credentials",
    "Proto",
    "Remote",
    "StaticChallenge",
    "TunnelConfig",
    "X509NameType",
]

Proto = Literal["udp", "udp4", "udp6", "tcp", "tcp4", "tcp6"]
ControlWrapKind = Literal["none", "tls-auth", "tls-crypt", "tls-crypt-v2"]
X509NameType = Literal["subject", "name", "name-prefix"]

PROTOS: tuple[Proto, ...] = ("udp", "udp4", "udp6", "tcp", "tcp4", "tcp6")
AEAD_CIPHERS = ("AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
CBC_CIPHERS = ("AES-128-CBC", "AES-192-CBC", "AES-256-CBC")
#: Ciphers whose blocks of 64 bits repeat after some gigabytes of one key (SWEET32, CVE-2016-6329).
SMALL_BLOCK_CIPHERS = ("BF-CBC", "DES-EDE3-CBC")
#: ``reneg-bytes`` with one of those, unless it is set (reference: options.c).
SMALL_BLOCK_RENEG_BYTES = 64 * 1024 * 1024
#: What openvpn 2.6 offers when a profile says nothing (reference: options.c).
DEFAULT_DATA_CIPHERS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
DIGESTS = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")


@dataclass(frozen=True, slots=True)
class Remote:
    """One server to try."""

    host: str
    port: int = 1194
    proto: Proto = "udp"
    #: What the connection goes through; the proxy resolves ``host``, we do not.
    proxy: Proxy | None = None
    scramble: Scramble | None = None
    #: What a ``<connection>`` block says for this server alone: names of TunnelConfig's fields, and values.
    settings: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    @property
    def is_tcp(self) -> bool:
        """Whether packets travel in a TCP stream with length prefixes."""
        return self.proto.startswith("tcp")


@dataclass(frozen=True, slots=True)
class StaticChallenge:
    """A question of the profile's (``static-challenge``), such as for a one-time password."""

    text: str
    #: The answer may be seen while it is typed.
    echo: bool = False
    #: The answer is put behind the password, instead of beside it (``SCRV1``).
    concatenated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelConfig:
    """A complete client configuration. Times are seconds, sizes are bytes.

    Raises ConfigError from ``validate`` (called by ``open_client``), not from
    the constructor, so a profile reader can build it piece by piece.
    """

    remotes: tuple[Remote, ...]

    # who we are, whom we trust
    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    key_password: bytes | None = field(default=None, repr=False)
    #: Additional certificates sent with ours (``extra-certs`` and what followed in ``cert``).
    extra_certs: bytes | None = field(default=None, repr=False)
    pkcs12: bytes | None = field(default=None, repr=False)
    credentials: Credentials | None = None
    #: The profile says auth-user-pass: without ``credentials`` somebody must be asked for them.
    needs_credentials: bool = False
    #: The user name, where the profile has it without the password.
    username: str | None = field(default=None, repr=False)
    static_challenge: StaticChallenge | None = None
    #: After AUTH_FAILED: ``none`` gives up, ``interact`` asks again, ``nointeract`` tries again
    #: unless it was a password that was refused.
    auth_retry: Literal["none", "nointeract", "interact"] = "none"
    #: A password that was asked for is forgotten once it was used.
    auth_nocache: bool = False

    # control channel
    control_wrap: ControlWrapKind = "none"
    #: tls-auth / tls-crypt: the PEM-like static key file; tls-crypt-v2: the client key file.
    control_wrap_key: bytes | None = field(default=None, repr=False)
    key_direction: Literal[0, 1] | None = None
    tls_version_min: Literal["1.0", "1.1", "1.2", "1.3"] = "1.2"
    tls_version_max: Literal["1.0", "1.1", "1.2", "1.3"] | None = None
    #: OpenSSL names, TLS 1.2 and older; None: the library's defaults.
    tls_cipher: str | None = None
    tls_ciphersuites: str | None = None
    tls_groups: str | None = None
    tls_cert_profile: Literal["insecure", "legacy", "preferred", "suiteb"] = "legacy"
    remote_cert_tls: bool = False
    remote_cert_ku: tuple[int, ...] | None = None
    remote_cert_eku: str | None = None
    verify_x509_name: tuple[str, X509NameType] | None = None
    peer_fingerprints: tuple[bytes, ...] = ()
    #: SHA-1 or SHA-256 hashes, of which that of the CA certificate right above the peer's must be one.
    verify_hash: tuple[bytes, ...] = ()
    crl: bytes | None = field(default=None, repr=False)
    #: The file that ``crl`` came from, absolute: read again when it changed, since lists expire. What it holds counts
    #: instead of ``crl``, unless that is just what ``crl_read`` says.
    crl_file: str | None = None
    #: The SHA-256 hash of what ``crl_file`` held when the profile was read: until the file holds something else,
    #: ``crl`` counts, which may have been exchanged in code.
    crl_read: bytes | None = field(default=None, repr=False)
    #: ``crl-verify DIR dir``: the absolute path of a folder with a file for each revoked certificate, named by its
    #: serial number in decimal.
    crl_folder: str | None = None

    # data channel
    data_ciphers: tuple[str, ...] = DEFAULT_DATA_CIPHERS
    data_ciphers_fallback: str | None = None
    #: ``cipher`` of the profile; goes into the options string (None: not set).
    cipher: str | None = None
    auth: str = "SHA1"
    #: Whether ``data_ciphers`` and the fallback may name ciphers with blocks of 64 bits. Only for servers that
    #: have nothing better: what they encrypt does not stay secret for long.
    allow_small_blocks: bool = False
    #: ``none``, ``comp-lzo-no``, ``stub``, ``stub-v2``: framing only, nothing is ever compressed.
    compression: str = "none"
    #: ``allow-compression asym``: packets that the server compressed (LZO, LZ4) are decompressed; ours still go
    #: out as they are. Needs the extra ``compression``. Whoever can make the server send chosen bytes learns from
    #: packet sizes what else is in the same packet.
    receive_compressed: bool = False
    fragment: int | None = None
    #: ``fragment`` counts the outer IP and UDP headers too.
    fragment_mtu: bool = False
    tun_mtu: int = 1500
    #: Largest outer datagram to aim at; ``mssfix_mtu`` says that it counts IP and UDP headers
    #: too. None: the default (1492 mtu); 0: off.
    mssfix: int | None = None
    mssfix_mtu: bool = False
    #: ``mssfix`` is the size of the inner IP packet, whatever surrounds it.
    mssfix_fixed: bool = False
    #: How late a packet may be, in packets and in seconds.
    replay_window: int = DEFAULT_REPLAY_WINDOW
    replay_time: float = DEFAULT_REPLAY_TIME

    # timers
    tls_timeout: float = 2.0
    hand_window: float = 60.0
    tran_window: float = 3600.0
    #: 0: never by time.
    reneg_sec: float = 3600.0
    #: 0: no limit; None: none either, but 64 MB with ciphers whose blocks have 64 bits.
    reneg_bytes: int | None = None
    reneg_packets: int = 0
    ping: float = 0.0
    ping_restart: float = 120.0
    ping_exit: float = 0.0
    explicit_exit_notify: int = 0
    #: The end of it all: after so long with less than ``inactive_bytes`` of IP packets, both ways together
    #: (0: with none at all); and ``session_timeout`` after a tunnel came up, whatever it carries. 0: never.
    inactive: float = 0.0
    inactive_bytes: int = 0
    session_timeout: float = 0.0

    # connecting
    remote_random: bool = False
    #: A label of random hexadecimal digits is put before each name that is looked up.
    remote_random_hostname: bool = False
    connect_retry: float = 1.0
    connect_retry_max_delay: float = 300.0
    #: Rounds over all remotes; None: for ever once the tunnel was up, one round before.
    connect_retry_max: int | None = None
    #: How long names are asked for again while none has an address, before the tunnel was up for the first time;
    #: math.inf: until somebody cancels. After that they are asked for in each round anyway.
    resolv_retry: float = 0.0
    #: From the first packet or the TCP handshake to the server's first answer, each.
    connect_timeout: float = 120.0
    #: Kernel socket buffers of the outer socket; 0: the system's defaults.
    sndbuf: int = 0
    rcvbuf: int = 0
    local_host: str | None = None
    local_port: int = 0
    #: UDP: a server may answer from another address than the one that was dialled, and move (``float``).
    floating: bool = False
    #: The network interface that the outer socket is bound to, and the mark on what it sends. Linux only; a socket
    #: that does not get them is not used.
    bind_device: str | None = None
    mark: int | None = None

    # pull
    pull: bool = True
    route_nopull: bool = False
    #: (action, text) of ``pull-filter``: action is accept, ignore or reject.
    pull_filters: tuple[tuple[str, str], ...] = ()
    #: Options given locally in the push grammar, such as ``("dhcp-option", "DNS", "10.0.0.1")``.
    local_options: tuple[tuple[str, ...], ...] = ()
    #: Additional peer-info lines (UV_*, IV_GUI_VER), sent as they are.
    peer_info: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    push_peer_info: bool = False

    def with_credentials(self, username: str, password: str) -> TunnelConfig:
        """A copy that holds these credentials."""
        return replace(self, credentials=Credentials(username, password))

    def for_remote(self, remote: Remote) -> TunnelConfig:
        """The configuration as it is for one of the servers: with what is said of it alone."""
        return replace(self, **dict(remote.settings)) if remote.settings else self

    def with_proxy(self, proxy: Proxy | None) -> TunnelConfig:
        """A copy whose every remote is reached through ``proxy`` (None: directly)."""
        return replace(self, remotes=tuple(replace(remote, proxy=proxy) for remote in self.remotes))

    def validate(self, *, can_ask: bool = False) -> None:
        """Raise ConfigError if no tunnel can come of this. ``can_ask``: somebody can be asked for what is missing."""
        if not self.remotes:
            raise ConfigError("no server to connect to", directive="remote")
        for contradiction in self.contradictions():
            raise contradiction
        for remote in self.remotes:
            own = self.for_remote(remote)
            if own.control_wrap != "none" and own.control_wrap_key is None:
                raise ConfigError("the key is missing", directive=own.control_wrap)
        # A PKCS #12 file may hold the CA too; whether it does is seen when it is opened.
        if self.ca is None and self.pkcs12 is None and not self.peer_fingerprints:
            raise ConfigError(
                "neither a CA nor a peer fingerprint: the server could not be verified",
                directive="ca",
            )
        if (self.cert is None) != (self.key is None):
            raise ConfigError("a certificate needs its key, and a key its certificate", directive="cert")
        if self.cert is None and self.pkcs12 is None and not self.needs_credentials and self.credentials is None:
            raise ConfigError(
                "neither a client certificate nor a user name: nothing to authenticate with",
                directive="cert",
            )
        if self.needs_credentials and self.credentials is None and not can_ask:
            raise ConfigError("a user name and a password are needed", directive="auth-user-pass")
        if self.static_challenge is not None and not can_ask:
            raise ConfigError(
                "the profile asks a question: give on_challenge to answer it", directive="static-challenge"
            )

    def contradictions(self) -> Iterator[ConfigError]:
        """All that could not be used whatever else is supplied; one complaint may come for several servers."""
        for remote in self.remotes:
            if remote.proxy is not None and not remote.is_tcp and not isinstance(remote.proxy, SocksProxy):
                name = "proxy-obfs4" if isinstance(remote.proxy, Obfs4Bridge) else "http-proxy"
                yield ConfigError("it carries only TCP; the remote says udp", directive=name)
            if isinstance(remote.proxy, Obfs4Bridge):
                for name, value in (("bind-dev", self.bind_device), ("mark", self.mark)):
                    if value is not None:
                        yield ConfigError(
                            "the obfs4 program makes its own connections, which cannot have it", directive=name
                        )
        for name in (*self.data_ciphers, *filter(None, [self.data_ciphers_fallback])):
            if name in SMALL_BLOCK_CIPHERS:
                if not self.allow_small_blocks:
                    yield ConfigError(
                        f"{name} is offered only on an explicit wish (allow_small_blocks)", directive="data-ciphers"
                    )
            elif name not in AEAD_CIPHERS and name not in CBC_CIPHERS:
                yield ConfigError(f"cipher {name} is not supported", directive="data-ciphers")
        if self.auth not in DIGESTS:
            yield ConfigError(f"digest {self.auth} is not supported", directive="auth")

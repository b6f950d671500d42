"""How the in-process server is told to behave, and what that means for both ends.

From ``ServerSettings`` follow the server's own configuration, that of each new client, and what each client is
pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from ..config.model import DEFAULT_DATA_CIPHERS, SMALL_BLOCK_CIPHERS, ControlWrapKind, TunnelConfig
from ..packet.ids import RandomBytes
from ..tlssession.server import ServerPolicy
from .keys import tls_crypt_v2_client_key
from .pki import CertificateAuthority, Identity

__all__ = ["ServerSettings", "client_config", "policy_for", "server_config"]


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server behaves. The defaults suit a test that just needs a tunnel.

    ``users`` makes it ask for credentials; ``policy`` is the starting point
    for what each client gets (addresses, peer-id and keepalive are added).
    """

    ca: CertificateAuthority = field(default_factory=CertificateAuthority)
    network: IPv4Network = field(default_factory=lambda: IPv4Network("10.8.0.0/24"))
    data_ciphers: tuple[str, ...] = DEFAULT_DATA_CIPHERS
    auth: str = "SHA1"
    control_wrap: ControlWrapKind = "none"
    #: The static key of tls-auth or tls-crypt; both sides use it, tls-auth with key-direction 0 here, 1 there.
    #: With tls-crypt-v2 the server key, from which each client gets one of its own.
    control_wrap_key: bytes | None = field(default=None, repr=False)
    #: tls-crypt-v2: clients must send their key again with message 1, as to a server that keeps no state before.
    force_cookie: bool = False
    compression: str = "none"
    fragment: int | None = None
    topology: str = "subnet"
    users: Mapping[str, str] | None = field(default=None, repr=False)
    #: Further options to push, such as ``dhcp-option DOMAIN example``.
    push: tuple[str, ...] = ()
    #: Seconds, as ``keepalive``: pushed to clients, and kept by the server with twice the restart time.
    ping: int = 10
    ping_restart: int = 60
    reneg_sec: float = 0.0
    tls_timeout: float = 2.0
    hand_window: float = 60.0
    tun_mtu: int = 1500
    #: Several tunnels with one certificate at the same time. Otherwise who comes again takes the place of who
    #: was there, and its address, as with openvpn.
    duplicate_cn: bool = False
    policy: ServerPolicy = field(default_factory=ServerPolicy)


def server_config(settings: ServerSettings, identity: Identity) -> TunnelConfig:
    """The server's own TunnelConfig; ``remotes`` is empty."""
    return TunnelConfig(
        remotes=(),
        ca=settings.ca.cert,
        cert=identity.cert,
        key=identity.key,
        control_wrap=settings.control_wrap,
        control_wrap_key=settings.control_wrap_key,
        key_direction=0 if settings.control_wrap == "tls-auth" else None,
        data_ciphers=settings.data_ciphers,
        auth=settings.auth,
        allow_small_blocks=True,
        compression=settings.compression,
        fragment=settings.fragment,
        tls_timeout=settings.tls_timeout,
        hand_window=settings.hand_window,
        tun_mtu=settings.tun_mtu,
    )


def client_config(settings: ServerSettings, common_name: str, *, rng: RandomBytes) -> TunnelConfig:
    """A TunnelConfig for a new client, with a fresh certificate if the server wants one; ``remotes`` is empty."""
    key = settings.control_wrap_key
    if settings.control_wrap == "tls-crypt-v2" and key is not None:
        key = tls_crypt_v2_client_key(key, rng=rng)
    with_certificate = settings.policy.client_certificate != "none"
    identity = settings.ca.issue_client(common_name) if with_certificate else None
    return TunnelConfig(
        remotes=(),
        ca=settings.ca.cert,
        cert=identity.cert if identity else None,
        key=identity.key if identity else None,
        remote_cert_tls=True,
        control_wrap=settings.control_wrap,
        control_wrap_key=key,
        key_direction=1 if settings.control_wrap == "tls-auth" else None,
        data_ciphers=settings.data_ciphers,
        auth=settings.auth,
        allow_small_blocks=not set(SMALL_BLOCK_CIPHERS).isdisjoint(settings.data_ciphers),
        compression=settings.compression,
        fragment=settings.fragment,
        needs_credentials=settings.users is not None,
        reneg_sec=0.0,
        tls_timeout=settings.tls_timeout,
        hand_window=settings.hand_window,
        tun_mtu=settings.tun_mtu,
    )


def policy_for(settings: ServerSettings, address: IPv4Address, gateway: IPv4Address) -> ServerPolicy:
    """What the client with ``address`` inside the tunnel gets; ``gateway`` is the server's own there."""
    # As unique as the address, and not given to anybody else for as long as the address is in use.
    peer_id = int(address) - int(settings.network.network_address)
    if settings.topology == "subnet":
        ifconfig = f"ifconfig {address} {settings.network.netmask}"
    else:
        ifconfig = f"ifconfig {address} {gateway}"
    push = (
        f"route-gateway {gateway}",
        f"topology {settings.topology}",
        f"ping {settings.ping}",
        f"ping-restart {settings.ping_restart}",
        ifconfig,
        f"dhcp-option DNS {gateway}",
        *settings.push,
    )
    users = settings.users
    return replace(
        settings.policy,
        push=(*settings.policy.push, *push),
        data_ciphers=settings.data_ciphers,
        peer_id=None if settings.policy.peer_id is None else peer_id,
        reneg_sec=settings.reneg_sec,
        ping=settings.ping,
        ping_restart=2 * settings.ping_restart,
        authenticate=settings.policy.authenticate
        or (None if users is None else lambda name, password: users.get(name) == password),
    )

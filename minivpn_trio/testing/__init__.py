"""For the test suites of programs that use a tunnel, and for this package's own.

- ``open_vpn_server``: an OpenVPN server inside the test process, with a TCP/IP
  stack and small services behind it; over 127.0.0.1, or over memory links
  that lose, delay, reorder, repeat and corrupt, seeded, on any Trio clock.
- ``CertificateAuthority``: certificates made on the spot; ``static_key``, ``tls_crypt_v2_server_key``,
  ``tls_crypt_v2_client_key``: keys for the control channel.
- ``Endpoint`` and ``LinkModel``: both ends of a session and the link between
  them without Trio, for simulations of one's own.

Nothing here is imported by the rest of the package, apart from the command
``minivpn-trio demo``.
"""

from .endpoint import Endpoint
from .keys import static_key, tls_crypt_v2_client_key, tls_crypt_v2_server_key
from .link import LinkConditions, LinkModel, MemoryTransport, memory_link
from .pki import CertificateAuthority, Identity
from .server import ServerCore
from .server_settings import ServerSettings
from .services import ServiceHost
from .vpn_server import MemoryDialer, VPNServer, open_vpn_server

__all__ = [
    "CertificateAuthority",
    "Endpoint",
    "Identity",
    "LinkConditions",
    "LinkModel",
    "MemoryDialer",
    "MemoryTransport",
    "ServerCore",
    "ServerSettings",
    "ServiceHost",
    "VPNServer",
    "memory_link",
    "open_vpn_server",
    "static_key",
    "tls_crypt_v2_client_key",
    "tls_crypt_v2_server_key",
]

"""Every directive that openvpn 2.6 knows, and what becomes of it here.

HONOURED: it means here what it means there. IGNORED: it has no meaning for a
tunnel inside a program, and leaving it out harms nothing. WARNED: left out as
well, but whoever wrote it should know. REFUSED: the profile cannot be used,
because leaving it out would make it fail in a way nobody understands, or be
less safe than it says.

Older names that 2.6 has dropped, and a few of other programs' that are met in
profiles, are in the table too (reference for names and numbers of values:
openvpn 2.6.14, options.c, add_option; the manual page).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["DIRECTIVES", "Directive", "Treatment"]


class Treatment(Enum):
    """What becomes of a directive."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    WARNED = "ignored with a warning"
    REFUSED = "refused"


class Directive(NamedTuple):
    """One row of the table."""

    name: str
    treatment: Treatment
    #: Why it is not honoured; empty for those that are.
    why: str = ""
    #: Fewest and most values; checked for honoured ones.
    values: tuple[int, int] = (0, 15)
    #: May be written as an inline block.
    inline: bool = False
    #: May stand in ``<connection>``.
    in_connection: bool = False


#: name, fewest values, most values; i: may be inline, c: may stand in <connection>.
_HONOURED = """
    auth 1 1            auth-user-pass 0 1 i    auth-retry 1 1        askpass 0 1         allow-compression 1 1
    auth-nocache 0 0    static-challenge 2 3
    block-ipv6 0 0      block-outside-dns 0 0   ca 1 1 i              cert 1 1 i          cipher 1 1
    client 0 0          comp-lzo 0 1            compress 0 1          connection 0 0 i    connect-retry 1 2 c
    connect-retry-max 1 1 c   connect-timeout 1 1 c   crl-verify 1 2 i   data-ciphers 1 1   data-ciphers-fallback 1 1
    dev 1 1             dev-type 1 1            dhcp-option 1 15      dns 1 15            explicit-exit-notify 0 1 c
    extra-certs 1 1 i   fragment 1 2 c          hand-window 1 1       ifconfig 2 2        ifconfig-ipv6 2 2
    ignore-unknown-option 1 15   inactive 1 2   keepalive 2 2         key 1 1 i           key-direction 1 1 c
    local 1 1 c         lport 1 1 c             mode 1 1              mssfix 0 2 c        ncp-ciphers 1 1
    peer-fingerprint 1 1 i   ping 1 1           ping-exit 1 1         ping-restart 1 1    pkcs12 1 1 i
    port 1 1 c          proto 1 1 c             proto-force 1 1       pull 0 0            pull-filter 2 2
    push-peer-info 0 0  rcvbuf 1 1              redirect-gateway 0 15 redirect-private 0 15   remote 1 3 c
    remote-cert-eku 1 1 remote-cert-ku 0 15     remote-cert-tls 1 1   remote-random 0 0   reneg-bytes 1 1
    remote-random-hostname 0 0
    reneg-pkts 1 1      reneg-sec 1 2           replay-window 0 2     route 1 4           route-gateway 1 1
    route-ipv6 1 3      route-ipv6-gateway 1 1  route-metric 1 1      route-nopull 0 0    rport 1 1 c
    server-poll-timeout 1 1 c
    session-timeout 1 1
    setenv 1 2          setenv-safe 1 2         sndbuf 1 1            tls-auth 1 2 i c    tls-cert-profile 1 1
    tls-cipher 1 1      tls-ciphersuites 1 1    tls-client 0 0        tls-crypt 1 1 i c   tls-crypt-v2 1 1 i c
    tls-groups 1 1      tls-timeout 1 1         tls-version-max 1 1   tls-version-min 1 2 topology 1 1
    tran-window 1 1     tun-mtu 1 2 c           udp-mtu 1 1 c         link-mtu 1 1 c      verify-hash 1 2 i
    verify-x509-name 1 2   ns-cert-type 1 1     bind 0 1 c            nobind 0 0 c
    http-proxy 2 4 c    http-proxy-option 2 3 c socks-proxy 1 3 c     http-proxy-user-pass 1 1 i
    proxy-obfs4 1 1 c   scramble 1 2 c          bind-dev 1 1          mark 1 1
    resolv-retry 1 1    float 0 0 c
"""

#: Left out without a word.
_IGNORED = {
    "there is no process of its own to run, watch or log": """
        cd chroot daemon errors-to-stderr group log log-append machine-readable-output mlock mute
        mute-replay-warnings nice setcon single-session status status-version suppress-timestamps syslog
        txqueuelen user verb writepid fast-io mtu-disc mtu-test socket-flags tcp-nodelay tcp-queue-limit
        bcast-buffers disable-dco
    """,
    "a connection is always built anew, with everything kept in memory": """
        persist-key persist-tun persist-local-ip persist-remote-ip up-delay up-restart ping-timer-rem
        tls-exit
    """,
    "names are asked for in each round anew": "preresolve ip-remote-hint",
    "there is no device of the operating system to set up": """
        dev-node tun-ipv6 ifconfig-noexec ifconfig-nowarn route-noexec route-delay route-method
        max-routes iproute tap-sleep ip-win32 dhcp-renew dhcp-release dhcp-pre-release dhcp-internal register-dns
        win-sys windows-driver show-net-up pause-exit service allow-nonadmin rdns-internal msg-channel
        allow-recursive-routing passtos allow-pull-fqdn lladdr multihome
    """,
    "it says how warnings are made or what is shown": "echo parameter gremlin memstats disable-occ opt-verify",
    "nothing is ever compressed": "comp-noadapt",
    "openvpn 2.6 ignores it too: how long and how often is said by connect-timeout and connect-retry": """
        http-proxy-retry http-proxy-timeout socks-proxy-retry
    """,
    "the crypto library takes care of it": "prng use-prediction-resistance ecdh-curve",
    "it concerns only a server": "dh",
}

_WARNED = {
    "programs named in a profile are never run": """
        up down down-pre route-up route-pre-down ipchange script-security
        tls-export-cert x509-track
    """,
    "the program is never run: what it would check of the server's certificate is not checked": "tls-verify",
    "plugins are never loaded": "plugin",
    "there is no management interface": """
        management management-client management-client-auth management-client-group management-client-user
        management-forget-disconnect management-hold management-log-cache management-query-passwords
        management-query-proxy management-query-remote management-signal management-up-down
        http-proxy-override
    """,
    "openvpn 2.6 no longer knows it, and neither do we": """
        key-method no-iv keysize ncp-disable compat-names no-name-remapping mtu-dynamic max-packet-size
        ifconfig-pool-linear management-client-pf
    """,
    "it is meant for Ethernet tunnels (tap)": "tun-mtu-extra",
    "a tunnel inside a program does not need it": "client-nat shaper tun-mtu-max replay-persist",
    "not supported yet; the tunnel works without": """
        remap-usr1 keying-material-exporter compat-mode
        x509-username-field
    """,
    "the crypto library is not configured by a profile": "engine providers",
    "certificates are taken from 'ca' only": "capath",
    "it is pushed by a server and has no meaning in a profile": """
        peer-id key-derivation protocol-flags push-continuation auth-token auth-token-user
    """,
}

_REFUSED = {
    "static key mode has no forward secrecy and is gone from openvpn; use certificates": "secret",
    "another file cannot be included": "config",
    "this is a client; the profile is one of a server": """
        auth-gen-token auth-gen-token-secret auth-user-pass-optional auth-user-pass-verify ccd-exclusive
        client-cert-not-required client-config-dir client-connect client-crresponse client-disconnect
        client-to-client connect-freq connect-freq-initial disable duplicate-cn force-tls-key-material-export
        hash-size ifconfig-ipv6-pool ifconfig-ipv6-push ifconfig-pool ifconfig-pool-persist ifconfig-push
        ifconfig-push-constraint iroute iroute-ipv6 learn-address max-clients max-routes-per-client port-share
        push push-remove push-reset server server-bridge server-ipv6 stale-routes-check tls-crypt-v2-verify
        tls-server tmp-dir username-as-common-name verify-client-cert vlan-accept vlan-pvid vlan-tagging
    """,
    "replay protection cannot be switched off": "no-replay",
    "it is no directive of openvpn's; obfs4 is written proxy-obfs4 obfs4://HOST:PORT?cert=CERT&iat-mode=MODE": """
        obfs4 obfsproxy
    """,
    "keys on smart cards and in key stores are not supported": """
        pkcs11-cert-private pkcs11-id pkcs11-id-management pkcs11-pin-cache pkcs11-private-mode
        pkcs11-protected-authentication pkcs11-providers cryptoapicert management-external-key
        management-external-cert
    """,
    "gone since openvpn 2.4, and leaving it out would trust more servers; write verify-x509-name": "tls-remote",
    "it is a command of its own and has no place in a profile": """
        genkey help mktun rmtun show-adapters show-ciphers show-curves show-digests show-engines show-gateway
        show-groups show-net show-pkcs11-ids show-tls show-valid-subnets test-crypto version
    """,
}


def _table() -> dict[str, Directive]:
    table: dict[str, Directive] = {}

    def add(row: Directive) -> None:
        if row.name in table:
            raise ValueError(f"{row.name} is in the table twice")
        table[row.name] = row

    words = _HONOURED.split()
    starts = [index for index, word in enumerate(words) if len(word) > 1 and not word.isdigit()]
    for start, stop in zip(starts, [*starts[1:], len(words)], strict=True):
        name, low, high, *flags = words[start:stop]
        add(
            Directive(
                name,
                Treatment.HONOURED,
                values=(int(low), int(high)),
                inline="i" in flags,
                in_connection="c" in flags,
            )
        )
    groups = ((Treatment.IGNORED, _IGNORED), (Treatment.WARNED, _WARNED), (Treatment.REFUSED, _REFUSED))
    for treatment, reasons in groups:
        for why, names in reasons.items():
            for name in names.split():
                add(
                    Directive(
                        name,
                        treatment,
                        why,
                        inline=name in _INLINE_TOO,
                        in_connection=name in _IN_CONNECTION_TOO,
                    )
                )
    return table


_INLINE_TOO = frozenset({"dh", "secret", "auth-gen-token-secret"})
_IN_CONNECTION_TOO = frozenset(
    {
        "http-proxy-retry", "http-proxy-timeout", "max-packet-size", "mtu-disc", "mtu-dynamic",
        "socks-proxy-retry", "tun-mtu-extra", "tun-mtu-max",
    }
)  # fmt: skip

#: By name.
DIRECTIVES: Mapping[str, Directive] = MappingProxyType(_table())

"""Negotiation: what the server pushed, and the tunnel that this and the profile make together.

The first PUSH_REPLY makes the tunnel, each PUSH_UPDATE changes it; either may come in several messages. What the
options mean is config/push.py's; here is what must be kept from one message to the next. Nothing is sent from here,
and no key is made: session.py does that.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal, NamedTuple

from ..config.model import TunnelConfig
from ..config.push import NegotiatedTunnel, PushAssembler, PushedOptions, apply_update, negotiate, parse_push
from ..config.tunnel_info import TunnelInfo
from ..items import KeepaliveTimes
from ..packet.ids import Role
from .keystate import DataSettings
from .options_string import cipher_in_options, fragment_in_options, options_string

__all__ = ["Change", "Negotiation"]


class Change(NamedTuple):
    """What a PUSH_UPDATE made of the tunnel."""

    tunnel: NegotiatedTunnel
    #: The fields of ``tunnel.info`` that are not what they were.
    changed: tuple[str, ...]
    #: The times of keepalive, if they are others now.
    keepalive: KeepaliveTimes | None
    #: What was not said before.
    warnings: tuple[str, ...]


class Negotiation:
    """The client's end of it, in one session.

    ``transport`` and ``remote_address`` (numeric, with or without its port) are what the options string and the MTU
    arithmetic need.
    """

    def __init__(
        self, config: TunnelConfig, *, transport: Literal["udp", "tcp"], remote_address: str | None
    ) -> None:
        self._config = config
        self._transport = transport
        self._remote_address = remote_address
        self._push = PushAssembler()
        self._update = PushAssembler("PUSH_UPDATE")
        #: What was pushed and updated so far, in the push grammar, but for tokens.
        self._pushed: tuple[str, ...] = ()
        self._occ_cipher: str | None = None
        #: What the push and the profile say together; None before PUSH_REPLY.
        self.tunnel: NegotiatedTunnel | None = None

    # options strings, of which only peers without negotiation need more than a warning

    @property
    def options(self) -> str:
        """Ours."""
        return options_string(self._config, Role.CLIENT, stream=self._transport == "tcp")

    def look_at_options(self, options: str) -> str | None:
        """Keep of the server's what may be of use. Returns what the user should hear of, if anything."""
        self._occ_cipher = cipher_in_options(options)
        if options and fragment_in_options(options) != (self._config.fragment is not None):
            return "fragment is set at one end only: no packet will get through"
        return None

    # pushes

    def take_reply(self, text: str) -> PushedOptions | None:
        """Take one PUSH_REPLY; what was pushed, once it is complete. Raises ConnectError if there is no end to it."""
        options = self._push.add(text)
        return None if options is None else parse_push(options)

    def conclude(self, pushed: PushedOptions, tls_version: str) -> NegotiatedTunnel:
        """Make the tunnel. Raises ConnectError (stage PUSH) where none can come of it."""
        self.tunnel = self._negotiate(pushed, tls_version)
        self._pushed = tuple(option for option in pushed.raw if not option.lstrip().startswith("auth-token"))
        return self.tunnel

    def take_update(self, text: str) -> Change | None:
        """Take one PUSH_UPDATE for the tunnel that there is; what it changed, once it is complete.

        Raises ConnectError where the tunnel has to be built anew instead.
        """
        former = self.tunnel
        assert former is not None
        options = self._update.add(text)
        if options is None:
            return None
        updated = apply_update(self._config, self._pushed, options)
        tunnel = self._negotiate(parse_push(updated.options), former.info.tls_version)
        self.tunnel = tunnel
        self._pushed = updated.options
        times = KeepaliveTimes(tunnel.ping, tunnel.ping_restart, tunnel.ping_exit)
        same_times = times == KeepaliveTimes(former.ping, former.ping_restart, former.ping_exit)
        warnings = dict.fromkeys((*updated.warnings, *tunnel.warnings))
        return Change(
            tunnel=tunnel,
            changed=_differences(former.info, tunnel.info),
            keepalive=None if same_times else times,
            warnings=tuple(text for text in warnings if text not in former.warnings),
        )

    def _negotiate(self, pushed: PushedOptions, tls_version: str) -> NegotiatedTunnel:
        return negotiate(
            self._config,
            pushed,
            transport=self._transport,
            remote_address=self._remote_address,
            occ_cipher=self._occ_cipher,
            tls_version=tls_version,
        )

    def data_settings(self, tunnel: NegotiatedTunnel) -> DataSettings:
        """What the data keys of ``tunnel`` have in common."""
        return DataSettings(
            cipher=tunnel.cipher,
            auth=tunnel.auth,
            key_derivation=tunnel.key_derivation,
            peer_id=tunnel.peer_id,
            compression=tunnel.compression,
            transition_window=self._config.tran_window,
            ping=tunnel.ping,
            ping_restart=tunnel.ping_restart,
            ping_exit=tunnel.ping_exit,
            inactive=tunnel.inactive,
            inactive_bytes=tunnel.inactive_bytes,
            reneg_bytes=tunnel.reneg_bytes,
            reneg_packets=self._config.reneg_packets,
            fragment=tunnel.fragment,
            epoch=tunnel.epoch,
            decompress=tunnel.decompress,
            options=self.options,
        )


def _differences(former: TunnelInfo, new: TunnelInfo) -> tuple[str, ...]:
    """The fields that are not the same."""
    names = (field.name for field in fields(TunnelInfo))
    return tuple(name for name in names if getattr(former, name) != getattr(new, name))

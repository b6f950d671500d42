"""The opcodes of the OpenVPN wire format (reference: ssl_pkt.h, P_* constants).

The first byte of every packet is ``opcode << 3 | key_id``.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CONTROL_OPCODES", "DATA_OPCODES", "KEY_ID_MASK", "OPCODE_SHIFT", "Opcode"]

OPCODE_SHIFT = 3
KEY_ID_MASK = 0b111


class Opcode(IntEnum):
    """What a packet is. 1 and 2 are the long dead key method 1 and are never accepted."""

    CONTROL_SOFT_RESET_V1 = 3
    CONTROL_V1 = 4
    ACK_V1 = 5
    DATA_V1 = 6
    CONTROL_HARD_RESET_CLIENT_V2 = 7
    CONTROL_HARD_RESET_SERVER_V2 = 8
    DATA_V2 = 9
    CONTROL_HARD_RESET_CLIENT_V3 = 10
    CONTROL_WKC_V1 = 11

    @property
    def wire_name(self) -> str:
        """The name that OpenVPN's logs and OONI's traces use, as in ``P_CONTROL_V1``."""
        return f"P_{self.name}"


DATA_OPCODES = frozenset({Opcode.DATA_V1, Opcode.DATA_V2})
CONTROL_OPCODES = frozenset(Opcode) - DATA_OPCODES

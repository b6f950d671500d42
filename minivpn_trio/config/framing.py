"""Which bytes a compression directive puts before a packet.

This client never compresses. A peer that speaks one of OpenVPN's compression
framings still expects the byte that says "not compressed"; which one, and
where, depends on the directive (reference: comp.h, comp.c, options.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["Framing", "decompressors", "framing_of"]


class Framing(NamedTuple):
    """``name`` is ``none``, ``comp-lzo-no``, ``stub`` or ``stub-v2``; ``compresses`` says that the
    directive asked for more than the framing."""

    name: str
    compresses: bool = False


#: 0xFA before the packet.
_LZO = "comp-lzo-no"
#: 0xFB before the packet, whose first byte goes to its end.
_STUB = "stub"
#: Nothing, except before a packet that begins with 0x50.
_STUB_V2 = "stub-v2"

_COMPRESS = {
    "stub": Framing(_STUB),
    "stub-v2": Framing(_STUB_V2),
    # "Go away from compression": the server decides, until then there is no framing.
    "migrate": Framing("none"),
    # lzo by ``compress`` leaves the first byte in its place, like comp-lzo.
    "lzo": Framing(_LZO, compresses=True),
    "lz4": Framing(_STUB, compresses=True),
    "lz4-v2": Framing(_STUB_V2, compresses=True),
}

_COMP_LZO = {
    "no": Framing(_LZO),
    "yes": Framing(_LZO, compresses=True),
    "adaptive": Framing(_LZO, compresses=True),
}


def decompressors() -> dict[str, bool]:
    """For ``lzo`` and ``lz4``, whether the library to decompress it is installed (the extra ``compression``)."""
    return {"lzo": find_spec("lzallright") is not None, "lz4": find_spec("lz4") is not None}


def framing_of(directive: str, values: Sequence[str]) -> Framing | None:
    """The framing of ``compress [algorithm]`` or ``comp-lzo [mode]``; None: no such algorithm."""
    if len(values) > 1:
        return None
    if directive == "compress":
        return _COMPRESS.get(values[0] if values else "stub")
    return _COMP_LZO.get(values[0] if values else "adaptive")

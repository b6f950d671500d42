"""Whose a packet is: the addresses in it, of what kind they are, and who is bound there."""

from __future__ import annotations

from typing import TypeVar

from ..packets import Address

__all__ = ["LOOPBACK", "Ports", "bound_to", "destination_of", "is_host", "is_loopback", "source_of", "taken"]

LOOPBACK = {4: bytes((127, 0, 0, 1)), 16: bytes(15) + b"\1"}

T = TypeVar("T")
#: Who is bound, by address (zeros: all of ours of that family; None: all) and port.
Ports = dict[tuple[Address | None, int], T]


def is_host(address: Address) -> bool:
    """Whether a packet may come from ``address``: not unspecified, loopback, multicast or broadcast."""
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and any(address[:15])


def is_loopback(address: Address) -> bool:
    """127.0.0.0/8 and ::1."""
    return address[0] == 127 if len(address) == 4 else address == LOOPBACK[16]


def source_of(packet: bytes) -> Address:
    """Where an IP packet says it comes from."""
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def destination_of(packet: bytes) -> Address:
    """Where an IP packet goes."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def bound_to(ports: Ports[T], address: Address, port: int) -> T | None:
    """Who gets what arrives for ``address`` and ``port``: the most specific one."""
    return ports.get((address, port)) or ports.get((bytes(len(address)), port)) or ports.get((None, port))


def taken(ports: Ports[T], address: Address | None, port: int) -> bool:
    """Whether somebody has ``port`` at an address that overlaps with ``address``."""
    if (address, port) in ports or (None, port) in ports:
        return True
    if address is None:
        return any(port == used for _, used in ports)
    if any(address):
        return (bytes(len(address)), port) in ports
    return any(port == used and other is not None and len(other) == len(address) for other, used in ports)

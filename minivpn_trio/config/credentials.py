"""A user name and a password, for a server or for a proxy."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Credentials"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password. Never shown by ``repr``."""

    username: str = field(repr=False)
    password: str = field(repr=False)

"""Reading the files that make a profile: regular ones, of bounded size, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["MAX_PROFILE", "MAX_REFERENCED", "FileMissing", "FileRefused", "read_regular", "readable_folder", "resolve"]

#: Bytes of a profile.
MAX_PROFILE = 256 * 1024
#: Bytes of a file that a profile names.
MAX_REFERENCED = 1024 * 1024


class FileRefused(Exception):
    """A file was not read; the text says why, without naming it or quoting it."""


class FileMissing(FileRefused):
    """There is no such file."""


def resolve(name: str, base: Path, confine: Path | None) -> Path:
    """Where ``name`` in a profile of folder ``base`` points.

    With ``confine`` only files below that folder are allowed, symbolic links
    followed. Raises FileRefused.
    """
    path = base / name
    if confine is not None:
        try:
            inside = path.resolve().is_relative_to(confine.resolve())
        except (OSError, RuntimeError, ValueError):
            inside = False
        if not inside:
            raise FileRefused("the file lies outside the folder that profiles may refer to")
    return path


def readable_folder(path: Path) -> Path:
    """``path`` if it is a folder that can be looked into. Raises FileRefused."""
    try:
        with os.scandir(path) as entries:
            next(entries, None)
        os.stat(path / ".")
    except ValueError:
        raise FileMissing("no folder can have such a name") from None
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileMissing("the folder does not exist") from None
        raise FileRefused(f"the folder cannot be looked into: {os.strerror(error.errno or 0)}") from None
    return path


def read_regular(path: Path, *, limit: int) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes. Raises FileRefused.

    The check is made on the open file, and opening does not block, so neither
    a pipe nor a file that is exchanged in between gets through.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # a NUL in the name
        raise FileMissing("no file can have such a name") from None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise FileMissing("the file does not exist") from None
        raise FileRefused(f"the file cannot be opened: {os.strerror(error.errno or 0)}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FileRefused(f"not a regular file but {'a folder' if stat.S_ISDIR(mode) else 'something else'}")
        data = _read_up_to(descriptor, limit + 1)
    except OSError as error:
        raise FileRefused(f"the file cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise FileRefused(f"the file is larger than {limit // 1024} KiB")
    return data


def _read_up_to(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)

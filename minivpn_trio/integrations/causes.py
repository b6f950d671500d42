"""Why a connection failed, in one line: the end of a chain of causes."""

from __future__ import annotations

__all__ = ["root_cause"]


def root_cause(exc: BaseException) -> str:
    """What the OSErrors with an errno behind ``exc`` say, once each; if there are none, the first exception.

    ``trio.open_tcp_stream`` says only that all attempts failed; its causes know why.
    """
    seen: dict[str, None] = {}
    _collect(exc, seen)
    return "; ".join(seen)


def _collect(exc: BaseException, seen: dict[str, None]) -> None:
    # httpcore's pool raises `from None`, which hides the cause and leaves the context.
    behind = exc.__cause__ or exc.__context__
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            _collect(each, seen)
    elif behind is None or (isinstance(exc, OSError) and exc.errno is not None):
        seen.setdefault(str(exc))
    else:
        _collect(behind, seen)

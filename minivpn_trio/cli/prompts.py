"""Questions on the terminal: user name, passwords, challenges, pages to open."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import click
import trio

from ..challenge import Challenge, ChallengeKind
from ..config.model import Credentials
from ..tlssession.login import Answer, OnChallenge
from .printable import printable

__all__ = ["terminal_challenges"]


def terminal_challenges(paused: Callable[[], AbstractContextManager[None]] = nullcontext) -> OnChallenge | None:
    """An ``on_challenge`` that asks on the terminal; None: there is no terminal, and nobody to ask.

    ``paused`` keeps a progress display away while somebody types.
    """
    if not sys.stdin.isatty():
        return None

    async def ask(challenge: Challenge) -> Answer:
        if challenge.kind is ChallengeKind.WEB:
            with paused():
                click.echo(f"To finish logging in, open this page in a browser:\n  {challenge.url}", err=True)
            return None
        # What came together with this question, such as a page to open, is shown before it.
        await trio.lowlevel.checkpoint()
        with paused(), _terminal_restored():
            # Abandoned, the thread waits for a line that nobody reads; it dies with the process.
            return await trio.to_thread.run_sync(_prompt, challenge, abandon_on_cancel=True)

    return ask


@contextlib.contextmanager
def _terminal_restored() -> Iterator[None]:
    """A question that nobody waits for any more must not leave the terminal without its echo."""
    try:
        import termios
    except ImportError:  # no terminal of this kind
        yield
        return
    before = None
    with contextlib.suppress(termios.error):
        before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _prompt(challenge: Challenge) -> Answer:
    if challenge.reason:
        click.echo(f"Refused: {printable(challenge.reason)}", err=True)
    match challenge.kind:
        case ChallengeKind.CREDENTIALS:
            username = challenge.username or click.prompt("User name", err=True)
            return Credentials(username, click.prompt(f"Password of {printable(username)}", hide_input=True, err=True))
        case ChallengeKind.KEY_PASSWORD | ChallengeKind.STATIC:
            text = printable(challenge.text)
        case _:
            text = f"The server asks: {printable(challenge.text)}"
    if not challenge.needs_answer:
        click.echo(text, err=True)
        return "" if challenge.kind is ChallengeKind.DYNAMIC else None
    text = text.rstrip(": ")
    answer: str = click.prompt(text, hide_input=not challenge.echo, err=True, default="", show_default=False)
    return answer

"""The command ``minivpn-trio``.

Exit status: 0 done; 1 the network or the peer failed; 2 the usage or the
profile is wrong; 130 interrupted. Errors are one line on stderr; ``--debug`` adds
the traceback.
Commands are imported when they are called, so ``--help`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from ..errors import ConfigError, MiniVPNError

__all__ = ["main"]

COMMANDS = {
    "check": "Say what a profile means and what is wrong with it.",
    "demo": "Run a whole tunnel on this machine: server, handshake, ping, fetch.",
    "fetch": "Fetch a URL through the tunnel.",
    "ping": "Ping a host inside the tunnel.",
    "trace": "Write the handshake as JSON.",
}


class LazyCommands(click.Group):
    """Commands that are imported on demand, and errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command ``cmd_name``, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __name__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what this package raises becomes a line and an exit status."""
        try:
            return super().invoke(ctx)
        except (MiniVPNError, OSError, ExceptionGroup) as exc:
            if ctx.find_object(dict) and ctx.obj.get("debug"):
                raise
            expected = first_expected(exc)
            if expected is None:
                raise
            click.echo(f"minivpn-trio: {describe(expected)}", err=True)
            ctx.exit(2 if isinstance(expected, ConfigError) else 1)
        except KeyboardInterrupt:
            ctx.exit(130)


def first_expected(exc: Exception) -> Exception | None:
    """What to tell of an exception, which may be a nursery's group; None: it holds a mistake of ours."""
    if not isinstance(exc, ExceptionGroup):
        return exc
    expected, others = exc.split((MiniVPNError, OSError))
    if expected is None or others is not None:
        return None
    first: Exception = expected
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first


def describe(exc: Exception) -> str:
    """An exception as one line."""
    from .printable import printable  # not before there is something to say

    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    if isinstance(exc, OSError) and exc.filename:
        text = f"{exc.filename}: {text}"
    return printable(" ".join(text.split())) or type(exc).__name__


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(package_name="minivpn-trio")
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """An OpenVPN client in one process: no root, no tun device, no daemon.

    Takes an ordinary .ovpn profile, brings the tunnel up inside this process
    and does one thing through it. Nothing else on this machine goes through
    the tunnel.

    \b
    Exit status:
      0  done
      1  the network or the peer failed; a server's name that does not exist, too,
         whatever the profile's resolv-retry says
      2  wrong usage, or the profile cannot be used
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Entry point of the console script."""
    try:
        status = group.main(args=sys.argv[1:], prog_name="minivpn-trio", standalone_mode=False)
    except NoArgsIsHelpError as exc:
        exc.show()
        status = exc.exit_code
    except click.ClickException as exc:
        text = " ".join(exc.format_message().split())
        ctx = exc.ctx if isinstance(exc, click.UsageError) else None
        hint = f"; see '{ctx.command_path} --help'" if ctx is not None else ""
        click.echo(f"minivpn-trio: {text.rstrip('.')}{hint}", err=True)
        status = 2
    except click.Abort:
        status = 130
    sys.exit(status)

"""The command ``minivpn-trio``.

Exit status: 0 done; 1 the network or the peer failed; 2 the usage or the
profile is wrong. Errors are one line on stderr; ``--debug`` adds the traceback.
Commands are imported when they are called, so ``--help`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

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
        except (MiniVPNError, OSError) as exc:
            if ctx.find_object(dict) and ctx.obj.get("debug"):
                raise
            click.echo(f"minivpn-trio: {describe(exc)}", err=True)
            ctx.exit(2 if isinstance(exc, ConfigError) else 1)
        except KeyboardInterrupt:
            ctx.exit(130)


def describe(exc: Exception) -> str:
    """An exception as one line."""
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    if isinstance(exc, OSError) and exc.filename:
        text = f"{exc.filename}: {text}"
    return " ".join(text.split()) or type(exc).__name__


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
      1  the network or the peer failed
      2  wrong usage, or the profile cannot be used
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Entry point of the console script."""
    group.main(args=sys.argv[1:], prog_name="minivpn-trio")

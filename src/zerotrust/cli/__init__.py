"""SPEAKS. One file per command, at most 120 lines each.

1. A command is imported when it is asked for: `zerotrust --help` loads click and little else.
2. Every failure is one message on stderr and an exit code, never a traceback: 1 refused or wrong,
   2 usage, 3 unavailable (try again later), 130 interrupted.
3. Results go to stdout; `--json` gives the same as one JSON object. No colour: NO_COLOR holds.
4. Every command ends by saying what to do next.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from zerotrust.cli.output import complain

COMMANDS: Final[
    dict[str, str]
] = {  # name -> its line in `zerotrust --help`; the module has the same name
    "dev": "A throw-away CA for this machine: up, run, status, down.",
    "ca": "Set up and run a certificate authority.",
    "entry": "Register who may get which identity.",
    "token": "Create a one-time join token; look into any token.",
    "svid": "Fetch an identity, or show one.",
    "bundle": "Show whom an identity trusts.",
    "serve": "Serve an ASGI application: mutual TLS, tokens, policy.",
    "policy": "Check, test and explain a policy file.",
    "doctor": "Find what is wrong on this machine.",
    "explain": "Say what an error code means and how to mend it.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported on demand and whose failures are messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name every command without importing one."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"zerotrust.cli.{cmd_name}").command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list from the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn whatever it raises into one message and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the outermost boundary
            ctx.exit(complain(exc))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zerotrust-kit", prog_name="zerotrust")
def cli() -> None:
    """Every call between services proves who is calling, or it is refused."""


def main() -> None:
    """Run the command line."""
    cli(prog_name="zerotrust")

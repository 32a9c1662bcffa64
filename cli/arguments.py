"""What the verbs of the `kite` command share: the data home, JSON, order in their help, exit codes.

Exit codes: 0 done, 1 it did not work or is not healthy, 2 asked for wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from libs.common.errors import KiteError, SettingsError

__all__ = ["Verb", "Verbs", "called", "home_of", "home_option", "json_option", "run_verbs"]

EXIT_INTERRUPTED = 130
_COMMAND = "./kite"


def called() -> str:
    """Return how the command is called here: `./kite`, or what a container is asked with."""
    context = click.get_current_context(silent=True)
    return (context.find_root().info_name if context else None) or _COMMAND


class Verb(click.Command):
    """A verb whose help names the command as it is called here."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the help as it is printed."""
        return super().get_help(ctx).replace(_COMMAND, called())


class Verbs(click.Group):
    """A group of verbs; lists them in the order in which they are declared: the order of use."""

    command_class = Verb

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in that order."""
        return list(self.commands)


def run_verbs(group: click.Group, name: str = _COMMAND) -> NoReturn:
    """Run a command line and exit; every failure of ours is one line without a traceback."""
    try:
        sys.exit(group.main(prog_name=name, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.UsageError as error:
        words = error.ctx.command_path if error.ctx else name
        code = _say((f"{_clause(error.format_message())} see {words} --help",), error.exit_code)
    except click.ClickException as error:
        code = _say((error.format_message(),), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except SettingsError as error:
        code = _say(error.problems, error.exit_code)
    except KiteError as error:
        code = _say((str(error),), error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _clause(text: str) -> str:
    """Return an error of click's such that a clause of ours may follow it."""
    return text if text.endswith("?") else f"{text.rstrip('.')};"


def _say(lines: tuple[str, ...], code: int) -> int:
    for line in lines:
        click.echo(f"kite: {line}", err=True)
    return code


def home_of(value: str | None) -> Any:
    """Return the data home that was named, or the usual one."""
    from cli.home import Home, default_home

    return Home((Path(value) if value else default_home(os.environ)).absolute())


home_option = click.option(
    "--home",
    metavar="DIR",
    envvar="KITE_HOME",
    help="Where data is kept.  [default: ./.kite, for root /var/lib/alphakite]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")

"""What the verbs of the `kite` command share: the data home, JSON, and the order in their help."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

__all__ = ["Verbs", "home_of", "home_option", "json_option"]


class Verbs(click.Group):
    """A group of verbs; lists them in the order in which they are declared: the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in that order."""
        return list(self.commands)


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

"""`docker compose run --rm cli VERB`: what a person may ask of ingest, where containers run it.

The same verbs as `./kite` has, and only those that need nothing but the bus: the container logs in
there as the operator and has neither a data home nor a database.
"""

from __future__ import annotations

import click

from cli.arguments import Verbs, run_verbs
from cli.feed_commands import backfill, tickers

__all__ = ["operator"]

_CALLED = "docker compose run --rm cli"


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
def operator() -> None:
    """Ask ingest for tickers and past days, and see how it stands."""


operator.add_command(tickers)
operator.add_command(backfill)

if __name__ == "__main__":
    run_verbs(operator, _CALLED)

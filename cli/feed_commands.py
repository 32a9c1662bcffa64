"""The verbs about what ingest is to fetch: tickers, days of the past, days of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.arguments import Verb, Verbs, home_of, home_option, json_option

__all__ = ["backfill", "import_bars", "tickers"]


@click.group(cls=Verbs)
def tickers() -> None:
    """See and change which tickers are asked for.

    It takes effect while everything runs. Their order is their priority: when the broker takes
    fewer, the last are left out.
    """


@tickers.command("list", short_help="Show every ticker and how it stands.")
@home_option
@json_option
def tickers_list(home: str | None, as_json: bool) -> None:
    """Show every ticker in order of priority: streaming, quiet, waiting or dropped, and why."""
    from cli.tickers import run_list

    run_list(home_of(home), as_json=as_json)


@tickers.command("add", short_help="Add tickers to the list.")
@click.argument("names", metavar="TICKER...", nargs=-1, required=True)
@click.option("--first", is_flag=True, help="Before all others instead of after them.")
@home_option
@json_option
def tickers_add(names: tuple[str, ...], first: bool, home: str | None, as_json: bool) -> int:
    """Add tickers, and wait until they stream; exit code 1 if the broker does not take one.

    They stay over restarts, whatever KITE_TICKERS says. The session before today's and the day so
    far are filled in from price history.

    \b
    Examples:
      ./kite tickers add NVDA TSLA
      ./kite tickers add NVDA --first
    """
    from cli.tickers import run_add

    return run_add(home_of(home), names, first=first, as_json=as_json)


@tickers.command("remove", short_help="Remove tickers from the list.")
@click.argument("names", metavar="TICKER...", nargs=-1, required=True)
@home_option
@json_option
def tickers_remove(names: tuple[str, ...], home: str | None, as_json: bool) -> None:
    """Remove tickers, also those of KITE_TICKERS; what is stored of them stays."""
    from cli.tickers import run_remove

    run_remove(home_of(home), names, as_json=as_json)


_day_type = click.DateTime(formats=["%Y-%m-%d"])


@click.command("backfill", cls=Verb, short_help="Fetch past days from the broker's price history.")
@click.option("--ticker", "names", metavar="LIST", multiple=True, help="For example QQQ,SPY.")
@click.option("--from", "first", type=_day_type, metavar="DAY", help="[default: all there is]")
@click.option("--to", "last", type=_day_type, metavar="DAY", help="[default: the last day over]")
@click.option("--no-wait", is_flag=True, help="Ask, and do not watch.")
@click.option("--cancel", metavar="ID", help="Cancel an order; `all` cancels every one.")
@home_option
@json_option
def backfill(home: str | None, as_json: bool, **given: Any) -> int:
    """Fetch minutes of past days, as far back as the broker keeps them, and watch them come.

    Days are those of New York, both included. ingest does the work, beside the live data and within
    the broker's limit of requests; Ctrl-C ends the watching only, and the same request joins it
    again. Without --ticker it shows what was asked for. Exit code 1 if a ticker had no minutes.

    \b
    Examples:
      ./kite backfill --ticker QQQ,SPY --from 2026-10-12 --to 2026-11-20
      ./kite backfill
      ./kite backfill --cancel all
    """
    from cli import backfill as work

    chosen, cancel = given["names"], given["cancel"]
    first, last = (given[name].date() if given[name] else None for name in ("first", "last"))
    if cancel:
        work.run_cancel(home_of(home), "" if cancel == "all" else cancel)
        return 0
    if not chosen:
        if first or last:
            raise click.UsageError("--from and --to need --ticker")
        work.run_show(home_of(home), as_json=as_json)
        return 0
    return work.run_backfill(
        home_of(home), chosen, first, last, waiting=not given["no_wait"], as_json=as_json
    )


@click.command("import", short_help="Bring minute bars of CSV files into a store of files.")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--ticker", help="Whose bars they are, if the file is not named TICKER-….csv.")
@home_option
def import_bars(files: tuple[Path, ...], ticker: str | None, home: str | None) -> int:
    """Bring days of minute bars into the running stack, which must be one of ./kite up --csv.

    The files have the form that --csv plays. A day in a file is the whole of that day; one that is
    stored and equal stays as it is. Days that are not over for the stack are refused.

    \b
    Example:
      ./kite import FXY-2023-10.csv
    """
    from cli.import_bars import run

    return run(home_of(home), files, ticker)

"""Every verb of the `kite` command: options and help. The work is imported when it is asked for.

`arguments.run_verbs` says what the exit codes mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import click

from cli.arguments import Verbs as _Kite
from cli.arguments import home_of as _home
from cli.arguments import home_option as _home_option
from cli.arguments import json_option as _json_option
from cli.arguments import run_verbs
from cli.auth_commands import auth
from cli.feed_commands import backfill, import_bars, tickers

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit."""
    run_verbs(kite)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    click.echo(f"kite {project['project']['version']}")
    ctx.exit()


@click.group(
    cls=_Kite, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def kite() -> None:
    """Alpha Kite Max: market data, indicators and signals, live and in Postgres.

    \b
    First steps:
      ./kite up                    start everything with a simulated market
      ./kite tail                  watch ticks, candles and signals
      ./kite status                see what runs
    """


@kite.command()
@click.option("--schwab", is_flag=True, help="Use the Schwab account instead of the simulator.")
@click.option("--tickers", metavar="LIST", envvar="KITE_TICKERS", help="For example QQQ,SPY.")
@click.option(
    "--csv",
    "csv",
    metavar="FILE",
    multiple=True,
    help="Play minute bars from TICKER-….csv; may be repeated.",
)
@click.option("--speed", type=float, metavar="N", help="Run the simulated market N times as fast.")
@click.option(
    "--exit-after",
    "exit_after_s",
    type=float,
    metavar="SECONDS",
    help="Stop so long after being ready.",
)
@click.option(
    "--partitions",
    type=int,
    metavar="N",
    envvar="KITE_PARTITIONS",
    help="Spread tickers over N partitions.  [default: 1]",
)
@click.option(
    "--port",
    "gateway_port",
    type=int,
    metavar="PORT",
    envvar="KITE_GATEWAY_PORT",
    help="Where the page and its API are; 0: any free port.  [default: 8080, or a free one]",
)
@click.option(
    "--nats-port",
    type=int,
    metavar="PORT",
    envvar="KITE_NATS_PORT",
    help="Where NATS listens; 0: any free port.  [default: 4222, or a free one]",
)
@click.option(
    "--postgres-port",
    type=int,
    metavar="PORT",
    envvar="KITE_POSTGRES_PORT",
    help="Where Postgres listens; 0: any free port.  [default: 5432, or a free one]",
)
@click.option("--fresh", is_flag=True, help="Delete what this simulated market stored before.")
@_home_option
@_json_option
def up(home: str | None, csv: tuple[str, ...], **given: Any) -> int:
    """Start everything and keep it running until Ctrl-C.

    Prints `ready ADDRESS` once every service is ready and the first tick has flown. Starts again
    whatever dies. Each source of data has a store of its own below the data home.

    \b
    Examples:
      ./kite up
      ./kite up --tickers NVDA,TSLA --speed 10
      ./kite up --csv FXY-1min-2023-11.csv --speed 60
      ./kite up --schwab
    """
    from cli.options import UpOptions
    from cli.up import up as run

    return run(UpOptions(home=_home(home).root, csv=tuple(Path(file) for file in csv), **given))


@kite.command()
@_home_option
def down(home: str | None) -> None:
    """Stop what `./kite up` started, in order, and wait for its end."""
    from cli.control import down as run

    run(_home(home))


@kite.command()
@click.argument("service")
@_home_option
def restart(service: str, home: str | None) -> None:
    """Restart one process, and wait until it is ready.

    \b
    Example:
      ./kite restart ingest
    """
    from cli.control import restart as run

    run(_home(home), service)


@kite.command(short_help="Show what runs, and the addresses and logins to reach it.")
@_home_option
@_json_option
def status(home: str | None, as_json: bool) -> int:
    """Show what runs, and the addresses and logins to reach it; exit code 1 if nothing does."""
    from cli.status import show

    return show(_home(home), as_json=as_json)


@kite.command()
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after COUNT messages.")
@_home_option
@_json_option
def tail(subjects: tuple[str, ...], count: int | None, home: str | None, as_json: bool) -> None:
    """Show what flows over the bus; public subjects if none is named.

    \b
    Examples:
      ./kite tail
      ./kite tail live.tick.QQQ live.signal.QQQ
      ./kite tail 'live.candle.5m.>' -n 10 --json
      ./kite tail 'market.*'
    """
    from cli.tail import run
    from deploy.nats.policy import PUBLIC, permissions

    public = permissions(1)[PUBLIC].subscribe
    run(_home(home), subjects or public, count=count, as_json=as_json)


@kite.command()
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="How many lines to show.",
)
@_home_option
@_json_option
def logs(service: str, follow: bool, count: int, home: str | None, as_json: bool) -> None:
    """Show the log of one process, or of `kite` itself.

    \b
    Examples:
      ./kite logs writer
      ./kite logs ingest -f
    """
    from cli.logs import show

    show(_home(home).logs, service, count=count, following=follow, as_json=as_json)


@kite.command(short_help="Check database, freshness, rows and errors.")
@_home_option
@_json_option
def health(home: str | None, as_json: bool) -> int:
    """Check database, freshness, rows and errors; exit code 0 if all is well, else 1.

    Looks at the running stack; with KITE_PG_DSN and KITE_TICKERS set, at any other database.
    """
    from cli.health import run

    return run(_home(home), as_json=as_json)


@kite.command(short_help="Check this machine, and say what to mend.")
@_home_option
@_json_option
def doctor(home: str | None, as_json: bool) -> int:
    """Check this machine, and say what to mend; exit code 1 if the stack could not run."""
    from cli.doctor import run

    return run(_home(home), as_json=as_json)


kite.add_command(auth)
kite.add_command(tickers)
kite.add_command(backfill)
kite.add_command(import_bars)


@kite.command("export", short_help="Write stored rows to CSV or Parquet files.")
@click.argument("what", metavar="WHAT...", nargs=-1, required=True)
@click.option("--tickers", metavar="LIST", default="", help="For example QQQ,SPY.  [default: all]")
@click.option("--from", "since", metavar="WHEN", default="", help="The first day or instant.")
@click.option("--to", "until", metavar="WHEN", default="", help="The last day, or an instant.")
@click.option(
    "--timeframe",
    "timeframes",
    metavar="LIST",
    default="",
    help="For example 1m,5m, or all.  [default: 1m for candles, else all]",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["csv", "parquet"]),
    help="[default: what the file's name ends with, else csv]",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    default="",
    help="A file, or a directory with / at its end.  [default: standard output]",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@_home_option
@_json_option
def export(home: str | None, **given: Any) -> None:
    """Write stored rows to CSV or Parquet, for other programs.

    WHAT is candles, ticks, signals, gaps, revisions (candles before a correction) or options;
    several of them, or a file for each ticker, go to a directory. WHEN is a day of New York, which
    is meant whole, or an instant with its zone. Works on the running stack's database, or on the
    one that KITE_PG_DSN names, and changes nothing in it.

    \b
    Examples:
      ./kite export candles --tickers QQQ --from 2026-01-05 --to 2026-01-09 -o QQQ.parquet
      ./kite export ticks signals --format parquet -o research/
      ./kite export candles --tickers QQQ --timeframe 5m | head
      ./kite export candles -o bars/ && ./kite up --csv bars/QQQ-1m.csv
    """
    from cli.export.asked import Asked
    from cli.export.commands import run

    given["format"] = given["format"] or ""
    run(_home(home), Asked(**given))


@kite.group(cls=_Kite)
def db() -> None:
    """Look after the database."""


@db.command()
@_home_option
@_json_option
def migrate(home: str | None, as_json: bool) -> None:
    """Bring the schema up to date; `./kite up` does so by itself.

    Works on the running stack's database, or on the one that KITE_PG_DSN names.
    """
    from cli.db import run_migrate

    run_migrate(_home(home), as_json=as_json)


@kite.group(cls=_Kite)
def notify() -> None:
    """Try the channels by which people are told."""


@notify.command("test", short_help="Send a test message to each channel, or to one.")
@click.argument("channel", required=False)
@_json_option
def notify_test(channel: str | None, as_json: bool) -> int:
    """Send a test message to each channel, or to one; exit code 1 if one did not take it.

    Reads the file that KITE_NOTIFY_FILE names; nothing needs to run.

    \b
    Examples:
      KITE_NOTIFY_FILE=notify.toml ./kite notify test
      KITE_NOTIFY_FILE=notify.toml ./kite notify test phone --json
    """
    from cli.notify import run_test

    return run_test(channel, as_json=as_json)


@notify.command("status")
@_home_option
@_json_option
def notify_status(home: str | None, as_json: bool) -> int:
    """Show what each channel was sent, and what waits for it."""
    from cli.notify import run_status

    return run_status(_home(home), as_json=as_json)


_place_argument = click.argument("place", default="", required=False)
_name_option = click.option("--name", default="", help="Which backup.  [default: the newest]")


@db.command(short_help="Copy rows and streams together to a place.")
@_place_argument
@click.option("--retain", metavar="POLICY", default="", help="Then delete all but last=3,daily=7,…")
@click.option("--verify", is_flag=True, help="Then read it back and check every byte.")
@_home_option
@_json_option
def backup(place: str, retain: str, verify: bool, home: str | None, as_json: bool) -> None:
    """Copy rows and streams together, while everything goes on running.

    PLACE is a directory, s3://BUCKET/PREFIX or ssh://USER@HOST/PATH; without it KITE_BACKUP_URL,
    else `backups` in the data home. Keys come from the environment: docs/guides/backup.md.

    \b
    Examples:
      ./kite db backup
      ./kite db backup s3://my-bucket/kite --verify --retain last=3,daily=7,weekly=5
    """
    from cli.backup.commands import run_backup

    run_backup(_home(home), place, retain=retain, verify=verify, as_json=as_json)


@db.command(short_help="List the backups of a place.")
@_place_argument
@_home_option
@_json_option
def backups(place: str, home: str | None, as_json: bool) -> None:
    """List the whole backups of a place, oldest first."""
    from cli.backup.commands import run_list

    run_list(_home(home), place, as_json=as_json)


@db.command(short_help="Check that a backup is whole, or that it can be restored.")
@_place_argument
@_name_option
@click.option("--deep", is_flag=True, help="Restore it into servers of its own, and compare.")
@_home_option
@_json_option
def verify(place: str, name: str, deep: bool, home: str | None, as_json: bool) -> None:
    """Check every byte of a backup; exit code 3 when it is damaged.

    With --deep it is restored into a Postgres and a nats-server of its own, compared, and removed.
    """
    from cli.backup.commands import run_verify

    run_verify(_home(home), place, name=name, deep=deep, as_json=as_json)


@db.command(short_help="Put a backup back, into an empty data home or empty servers.")
@_place_argument
@_name_option
@_home_option
@_json_option
def restore(place: str, name: str, home: str | None, as_json: bool) -> None:
    """Put a backup back where nothing is; `./kite up` then goes on from there.

    Refuses when the data home has a store of this source already. With KITE_NATS_URL (of the
    administrator) and KITE_PG_DSN (of the owner) it goes into those servers, if they are empty.

    \b
    Example:
      ./kite db restore s3://my-bucket/kite --home /var/lib/alphakite
    """
    from cli.backup.commands import run_restore

    run_restore(_home(home), place, name=name, as_json=as_json)

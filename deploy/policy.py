"""Who may do what, on the bus and in the database: the one place where it is said.

`deploy.nats.policy` makes the bus's permissions of it, `deploy.supabase.roles` the logins and
`deploy.supabase.grants` what each may read. `./kite up` and the containers use the same. Whatever
is not said here is refused.

- A service publishes its own subjects only, reads through consumers that the init job made for it,
  and gets its answers in an inbox of its own. Nobody but `admin` makes or deletes streams and
  consumers.
- The gateway, which faces browsers, reads streams without a consumer, publishes commands only, and
  reads their answers.
- In the database the writer is the owner, because COPY and new partitions need that, or through
  Supabase's REST interface the service role, which calls a few functions. Everybody else reads,
  each no more than is listed. The web roles are those of Supabase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from libs.common.subjects import INDICATORS, MARKET, SIGNALS

__all__ = [
    "ADMIN",
    "BACKUP",
    "BUS_USERS",
    "DATABASE_ROLES",
    "EVERYTHING",
    "FUNCTIONS",
    "GATEWAY",
    "MARKET_DATA",
    "NOTIFIER",
    "OBSERVER",
    "OPERATIONS",
    "OPERATOR",
    "PUBLIC",
    "REST_SINK",
    "TABLES",
    "TRADING",
    "WEB_ROLES",
    "BusUser",
    "DatabaseRole",
]

# -- the bus ---------------------------------------------------------------------------------------

ADMIN: Final = "admin"
BACKUP: Final = "backup"
GATEWAY: Final = "gateway"
NOTIFIER: Final = "notifier"
OBSERVER: Final = "observer"
OPERATOR: Final = "operator"
PUBLIC: Final = "public"


@dataclass(frozen=True, kw_only=True)
class BusUser:
    """What one user does on the bus.

    `writes` is the stream whose frames it alone publishes; `consumes` are those that it reads
    through durable consumers of its own. `asks` are streams of which it may read any stored
    message. Who `keeps_desk` stores what people asked of it, and its answers, beside its state; a
    user `commands` the services that are named, and `reads_desks` of those. `says` and `hears` are
    live subjects. Who has `peers` tells other instances of itself how it stands. A user logs in by
    a key, unless people and programs that are not ours shall need nothing but an address:
    `has_password`.
    """

    writes: str | None = None
    consumes: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    peers: bool = False
    keeps_state: bool = False
    keeps_desk: bool = False
    dead_letters: bool = False
    takes_commands: bool = False
    commands: tuple[str, ...] = ()
    reads_desks: tuple[str, ...] = ()
    # Offices: all there is, all there is to read, whole streams as they lie on the disk.
    administers: bool = False
    observes: bool = False
    copies_streams: bool = False
    has_password: bool = False


_TICKS, _CANDLES, _CROSSES = "live.tick.>", "live.candle.>", "live.signal.>"
_PUBLIC_SUBJECTS = (_TICKS, _CANDLES, _CROSSES, "live.option.>")

BUS_USERS: Final[Mapping[str, BusUser]] = MappingProxyType(
    {
        ADMIN: BusUser(administers=True),
        "ingest": BusUser(
            writes=MARKET,
            peers=True,
            keeps_state=True,
            keeps_desk=True,
            dead_letters=True,
            takes_commands=True,
        ),
        "indicators": BusUser(
            consumes=(MARKET,),
            writes=INDICATORS,
            says=(_TICKS, _CANDLES),
            peers=True,
            keeps_state=True,
            dead_letters=True,
            takes_commands=True,
        ),
        "signals": BusUser(
            consumes=(INDICATORS,),
            writes=SIGNALS,
            says=(_CROSSES,),
            peers=True,
            keeps_state=True,
            dead_letters=True,
            takes_commands=True,
        ),
        "writer": BusUser(
            consumes=(MARKET, INDICATORS, SIGNALS),
            asks=(MARKET, INDICATORS, SIGNALS),
            peers=True,
            dead_letters=True,
            takes_commands=True,
        ),
        # It keeps its state in a file of its own, and tells people, not the bus.
        NOTIFIER: BusUser(consumes=(SIGNALS,)),
        GATEWAY: BusUser(
            asks=(MARKET, INDICATORS, SIGNALS),
            hears=(_TICKS, _CANDLES, _CROSSES, "live.status.*"),
            commands=("ingest", "indicators", "signals", "writer"),
            # What ingest says of the login to the broker, and what it answered.
            reads_desks=("ingest",),
        ),
        # A person at the command line: asks ingest for something, and reads its answers.
        OPERATOR: BusUser(commands=("ingest",), reads_desks=("ingest",)),
        BACKUP: BusUser(copies_streams=True),
        OBSERVER: BusUser(observes=True, has_password=True),
        PUBLIC: BusUser(hears=_PUBLIC_SUBJECTS, has_password=True),
    }
)

# -- the database ----------------------------------------------------------------------------------

# What the market did, and what was computed from it: for everybody.
MARKET_DATA: Final = (
    "equity_data",
    "indicators",
    "candles",
    "candle_revisions",
    "signals",
    "gaps",
    "option_prices",
)
# The paper account: for nobody's eyes but the owner's.
TRADING: Final = ("orders", "trades", "positions", "daily_pnl")
OPERATIONS: Final = (
    "stream_positions",
    "streaming_metrics",
    "session_checks",
    "kite_meta",
    "kite_migrations",
)
TABLES: Final = MARKET_DATA + TRADING + OPERATIONS

_HEALTH = "get_streaming_health(text)"
# What the writer calls through Supabase's REST interface, as whoever holds the service key.
REST_SINK: Final = (
    "kite_ensure_partition(text, date)",
    f"kite_commit(text, integer, {', '.join(['bigint'] * 4 + ['json'] * 6)})",
    "kite_claim(jsonb)",
    "kite_positions()",
    "kite_report(jsonb)",
    "kite_prune_reports(bigint)",
    "kite_database_bytes()",
    "kite_keep(text)",
    "kite_ticks_since()",
    "kite_usage(text[])",
    "kite_tally(text, integer, text[], bigint[], bigint[], bigint, integer)",
    "kite_first_day(text)",
    "kite_first_gap()",
    "kite_open_minutes(text[], bigint[])",
    "kite_traded_minutes(bigint, bigint)",
    "kite_session_minutes(bigint, bigint, boolean)",
)
# Called by other functions alone.
_INNER: Final = ("kite_known_tickers()",)
FUNCTIONS: Final = (_HEALTH, *REST_SINK, *_INNER)

# Also what is in tables that are yet to be made, and partitions by their own names.
EVERYTHING: Final = ("*",)


@dataclass(frozen=True, kw_only=True)
class DatabaseRole:
    """What one role does in the database: it reads these tables and calls these functions.

    The one that `owns` them all may do everything to them. Others log in for read-only transactions
    of at most `statement_timeout_s`, over at most `connections_max` connections, so that the writer
    always gets one. A role that does not log in is one of Supabase's.
    """

    reads: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    owns: bool = False
    logs_in: bool = True
    connections_max: int = 10
    statement_timeout_s: int = 30


DATABASE_ROLES: Final[Mapping[str, DatabaseRole]] = MappingProxyType(
    {
        "kite_owner": DatabaseRole(owns=True),
        # For status and for people.
        "kite_reader": DatabaseRole(reads=EVERYTHING, calls=(_HEALTH,)),
        "kite_gateway": DatabaseRole(
            reads=(*MARKET_DATA, "stream_positions", "streaming_metrics"), connections_max=20
        ),
        # A day of rows takes longer to copy than anybody should wait for an answer.
        "kite_backup": DatabaseRole(
            reads=EVERYTHING, connections_max=4, statement_timeout_s=6 * 3600
        ),
        "anon": DatabaseRole(reads=MARKET_DATA, logs_in=False),
        "authenticated": DatabaseRole(reads=MARKET_DATA, logs_in=False),
        # No table, only what the writer calls: each function is one thing that it does.
        "service_role": DatabaseRole(calls=REST_SINK, logs_in=False),
    }
)
WEB_ROLES: Final = tuple(name for name, role in DATABASE_ROLES.items() if not role.logs_in)

"""Which processes `./kite up` runs: what they are told, what they wait for, who stops first.

To add a service, add it to `_add_services`: its environment, its needs, its stage.

    unit          starts when reached            stops in stage
    nats          at once                        4
    postgres      at once                        4
    simulator     at once                        1
    bootstrap     nats                           (a job: streams, schema, login, first tick)
    ingest        streams, login                 0
    indicators    streams                        1
    signals       streams                        2
    writer        streams, schema                3
    gateway       streams, schema                0
    notifier      streams                        3  (only where KITE_NOTIFY_FILE is set)
    page          bootstrap                      (a job, only where the page is not built yet)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli import page
from cli.home import CHECKOUT, Home, Store
from cli.login_place import token_file, token_settings
from cli.milestones import BOOTSTRAP, LOGIN, SCHEMA, STREAMS
from cli.options import Market, UpOptions, recording_start
from cli.ports import GATEWAY_PORT, NATS_PORT, POSTGRES_PORT, Ports
from cli.processes import Program
from cli.programs import JobProgram, ServerProgram, ServiceProgram
from cli.recording import CLOCK_FILE_NAME
from cli.servers.host import LOOPBACK
from cli.servers.nats import NatsServer, streams_directory
from cli.servers.postgres import PostgresServer
from cli.units import Unit
from deploy.credentials import Credentials, load_credentials
from deploy.nats.policy import ADMIN, USERS
from deploy.simulated_app import APP_KEY, APP_SECRET, CALLBACK
from deploy.supabase.roles import DATABASE, GATEWAY_ROLE, LOGIN_ROLES, OWNER
from libs.common.addresses import url_here
from libs.common.settings import looks_secret

__all__ = ["Stack", "build"]

STOP_DEADLINE_S = 5
KILL_AFTER_S = 8.0
_SERVERS_KILL_AFTER_S = 20.0
_NATS_RECHECK_S = 2.0

# Decided here, whatever the environment says.
_DECIDED = frozenset(
    {"KITE_GATEWAY_PORT", "KITE_HOME", "KITE_PYTHON", "KITE_METRICS_PORT", "KITE_TICKERS"}
)
_LIVES = ("KITE_SIM_ACCESS_TOKEN_S", "KITE_SIM_REFRESH_TOKEN_S")
_FOREVER_S = 10**12  # in virtual time, which may run ten thousand times as fast

Environment = dict[str, str]


@dataclass
class Stack:
    """All units of one `up`, in the order in which they are shown, and where to reach them."""

    home: Home
    market: Market
    store: Store
    partitions: int
    credentials: Credentials
    nats_port: int
    postgres_port: int
    simulator_port: int | None
    gateway_port: int
    login: Environment
    units: list[Unit] = field(default_factory=list)
    programs: dict[str, Program] = field(default_factory=dict)

    @property
    def schwab_url(self) -> str:
        """Where the broker is: Schwab itself, or the simulator."""
        if self.simulator_port is None:
            return "https://api.schwabapi.com"
        return f"http://{LOOPBACK}:{self.simulator_port}"

    @property
    def gateway_url(self) -> str:
        """Where a browser finds the page."""
        return url_here(os.environ.get("KITE_GATEWAY_HOST", LOOPBACK), self.gateway_port)

    def nats_url(self, user: str) -> str:
        """Return how to reach NATS as `user`; known before the server is."""
        return f"nats://{user}:{self.credentials.nats[user]}@{LOOPBACK}:{self.nats_port}"

    def postgres_dsn(self, role: str) -> str:
        """Return how to reach Postgres as `role`; known before the server is."""
        login = f"{role}:{self.credentials.postgres[role]}"
        return f"postgresql://{login}@{LOOPBACK}:{self.postgres_port}/{DATABASE}"

    def add(self, program: Program, unit: Unit) -> None:
        """Add a unit and what it runs."""
        self.units.append(unit)
        self.programs[unit.name] = program


def build(home: Home, store: Store, market: Market, options: UpOptions, ports: Ports) -> Stack:
    """Describe every process and start none; raises SettingsError when a named port is taken."""
    identity = store.identity()
    stack = Stack(
        home,
        market,
        store,
        partitions=identity.partitions if identity else 1,
        credentials=load_credentials(store.root, nats_users=USERS, postgres_users=LOGIN_ROLES),
        nats_port=ports.usual(NATS_PORT, options.nats_port, "NATS", "--nats-port"),
        postgres_port=ports.usual(
            POSTGRES_PORT, options.postgres_port, "Postgres", "--postgres-port"
        ),
        simulator_port=None if market.source == "schwab" else ports.free(),
        gateway_port=ports.usual(GATEWAY_PORT, options.gateway_port, "the page", "--port"),
        login=_login(home, store, market),
    )
    _add_servers(stack)
    _add_simulator(stack, options.speed, ports)
    _add_services(stack, ports)
    _add_gateway(stack, ports)
    _add_notifier(stack, ports)
    return stack


def _add_servers(stack: Stack) -> None:
    root, runtime = stack.store.root, stack.home.runtime
    nats = NatsServer(root, partitions=stack.partitions, port=stack.nats_port, runtime=runtime)
    postgres = PostgresServer(root, port=stack.postgres_port, runtime=runtime)
    for program in (ServerProgram(nats, recheck_s=_NATS_RECHECK_S), ServerProgram(postgres)):
        unit = Unit(program.name, stop_stage=4, stop_deadline_s=_SERVERS_KILL_AFTER_S)
        stack.add(program, unit)


def _add_simulator(stack: Stack, speed: float | None, ports: Ports) -> None:
    if stack.simulator_port is None:
        return
    environment = {
        "KITE_SIM_PORT": str(stack.simulator_port),
        "KITE_SIM_CLOCK_FILE": str(stack.store.root / CLOCK_FILE_NAME),
        "KITE_SIM_APP_KEY": APP_KEY,
        "KITE_SIM_APP_SECRET": APP_SECRET,
        "KITE_SIM_CALLBACKS": CALLBACK,
        "KITE_SIM_REFRESH_TOKEN_S": str(_FOREVER_S),
    }
    if control_token := os.environ.get("KITE_SIM_CONTROL_TOKEN"):
        # It opens the simulator's own endpoints, and is meant for nobody else.
        environment["KITE_SIM_CONTROL_TOKEN"] = control_token
    for name in _LIVES:  # no secrets, though their names sound so: who wants to see a login end
        if life_s := os.environ.get(name):
            environment[name] = life_s
    if speed is not None:
        environment["KITE_SIM_SPEED"] = f"{speed:g}"
    if stack.market.csv:
        files = ",".join(f"{ticker}={path}" for ticker, path in stack.market.csv)
        # The recording begins with its first bar, however long the services take to start.
        environment |= {"KITE_SIM_CSV": files, "KITE_SIM_WAIT_FOR_SUBSCRIPTION": "1"}
        start = os.environ.get("KITE_SIM_START") or recording_start(stack.market)
        environment["KITE_SIM_START"] = start or ""
    _add_service(stack, ports, "simulator", lambda: environment, needs=(), stage=1)


def _add_services(stack: Stack, ports: Ports) -> None:
    stack.add(
        JobProgram(BOOTSTRAP, "cli.bootstrap", lambda: _environment(_bootstrap(stack))),
        Unit(BOOTSTRAP, needs=frozenset({"nats"}), job=True),
    )

    def on_bus(user: str) -> Callable[[], Environment]:
        return lambda: {**_common(stack), "KITE_NATS_URL": stack.nats_url(user)}

    def ingest() -> Environment:
        return {**on_bus("ingest")(), **_schwab(stack)}

    def writer() -> Environment:
        return {
            **on_bus("writer")(),
            "KITE_PG_DSN": stack.postgres_dsn(OWNER),
            "KITE_WRITER_STREAM_FILES_DIR": str(streams_directory(stack.store.root)),
        }

    _add_service(stack, ports, "ingest", ingest, needs=(STREAMS, LOGIN), stage=0)
    _add_service(stack, ports, "indicators", on_bus("indicators"), needs=(STREAMS,), stage=1)
    _add_service(stack, ports, "signals", on_bus("signals"), needs=(STREAMS,), stage=2)
    _add_service(stack, ports, "writer", writer, needs=(STREAMS, SCHEMA), stage=3)


def _add_gateway(stack: Stack, ports: Ports) -> None:
    """Add the gateway, and the job that builds its page where it is missing."""
    dashboard = CHECKOUT / "dashboard"
    chosen = os.environ.get("KITE_GATEWAY_DASHBOARD_DIR")
    place = Path(chosen) if chosen else page.directory(CHECKOUT, stack.home.runtime)

    def gateway() -> Environment:
        return {
            **_common(stack),
            **_passwords(),
            "KITE_NATS_URL": stack.nats_url("gateway"),
            "KITE_PG_DSN": stack.postgres_dsn(GATEWAY_ROLE),
            "KITE_GATEWAY_PORT": str(stack.gateway_port),
            "KITE_GATEWAY_DASHBOARD_DIR": str(place),
        }

    _add_service(stack, ports, "gateway", gateway, needs=(STREAMS, SCHEMA), stage=0)
    if not chosen and not page.built(dashboard, place):
        job = JobProgram(
            page.PAGE,
            "cli.page",
            lambda: _environment({}),
            arguments=(str(dashboard), str(place)),
        )
        stack.add(job, Unit(page.PAGE, needs=frozenset({BOOTSTRAP}), job=True))


def _add_notifier(stack: Stack, ports: Ports) -> None:
    """Add the notifier where somebody is to be told; it takes memory that others may not have."""
    file = os.environ.get("KITE_NOTIFY_FILE")
    if not file:
        return

    def notifier() -> Environment:
        return {
            **_common(stack),
            "KITE_NATS_URL": stack.nats_url("notifier"),
            "KITE_NOTIFY_FILE": str(Path(file).absolute()),
            "KITE_NOTIFIER_DATA_DIR": str(stack.store.root / "notifier"),
            # Nobody here looks for it at the usual port, which others like as well.
            "KITE_NOTIFIER_PORT": os.environ.get("KITE_NOTIFIER_PORT", "0"),
        }

    _add_service(stack, ports, "notifier", notifier, needs=(STREAMS,), stage=3)


def _passwords() -> Environment:
    """Hand over what opens the gateway, if a person has set it: no other service sees it."""
    names = ("KITE_GATEWAY_PASSWORD", "KITE_GATEWAY_PASSWORD_HASH")
    return {name: os.environ[name] for name in names if name in os.environ}


def _add_service(
    stack: Stack,
    ports: Ports,
    name: str,
    environment: Callable[[], Environment],
    *,
    needs: tuple[str, ...],
    stage: int,
) -> None:
    program = ServiceProgram(
        name, f"services.{name}", lambda: _environment(environment()), ports=ports
    )
    unit = Unit(name, frozenset(needs), stop_stage=stage, stop_deadline_s=KILL_AFTER_S)
    stack.add(program, unit)


# -- what they are told ----------------------------------------------------------------------------


def _common(stack: Stack) -> Environment:
    return {
        "KITE_PARTITIONS": str(stack.partitions),
        "KITE_SOURCE": stack.market.source,
        "KITE_STOP_DEADLINE_S": str(STOP_DEADLINE_S),
    }


def _schwab(stack: Stack) -> Environment:
    """Tell about the account: the simulator's, or the real one from our own environment."""
    environment = {
        "KITE_TICKERS": ",".join(stack.market.tickers),
        "KITE_INGEST_DATA_DIR": str(stack.store.root / "ingest"),
        **stack.login,
    }
    if stack.simulator_port is None:
        names = ("KITE_SCHWAB_APP_KEY", "KITE_SCHWAB_APP_SECRET")
        return environment | {name: os.environ[name] for name in names}
    return environment | {
        "KITE_SCHWAB_APP_KEY": APP_KEY,
        "KITE_SCHWAB_APP_SECRET": APP_SECRET,
        "KITE_SCHWAB_CALLBACK": CALLBACK,  # whatever the account's is
        "KITE_SCHWAB_BASE_URL": stack.schwab_url,
    }


def _login(home: Home, store: Store, market: Market) -> Environment:
    """Return where the token and its key are; the key is made if there is none."""
    token = token_file(store.root, os.environ, named=market.source == "schwab")
    return token_settings(home.root, token, os.environ)


def _bootstrap(stack: Stack) -> Environment:
    return {
        **_common(stack),
        **_schwab(stack),
        "KITE_NATS_URL": stack.nats_url(ADMIN),
        "KITE_PG_DSN": stack.postgres_dsn(OWNER),
    }


def _environment(ours: Mapping[str, str]) -> Environment:
    """Return a process's environment: settings pass through, secrets only to whom they are meant.

    So a person can tune any service (`KITE_WRITER_FLUSH_MS=100 ./kite up`), and no service sees the
    credentials of another.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KITE_") or not (name in _DECIDED or looks_secret(name))
    }
    return {**inherited, "PYTHONUNBUFFERED": "1", **ours}

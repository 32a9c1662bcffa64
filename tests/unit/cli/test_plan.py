"""The plan: every need can be met, and nobody is told more than it needs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.home import Home, Store, StoreIdentity
from cli.milestones import BOOTSTRAP, MILESTONES
from cli.options import Market, UpOptions
from cli.plan import Stack, build
from cli.ports import Ports
from cli.programs import ServiceProgram
from libs.common.errors import SettingsError
from tests.servers import temporary_home

DEMO = Market("demo", ("QQQ", "SPY"))
SCHWAB = Market("schwab", ("QQQ",))
OUR_KEYS = {"KITE_SCHWAB_APP_KEY": "real-key", "KITE_SCHWAB_APP_SECRET": "real-secret"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for a home."""
    with temporary_home() as directory:
        yield directory


def stack(
    place: Path, market: Market = DEMO, partitions: int = 1, speed: float | None = None
) -> Stack:
    """Return a planned stack of which nothing runs."""
    home, store = Home(place), Store(place / market.store_name)
    home.prepare()
    store.claim(StoreIdentity(market.source, partitions, market.csv_sha256))
    wanted = UpOptions(home=place, nats_port=0, postgres_port=0, speed=speed)
    with Ports() as ports:
        return build(home, store, market, wanted, ports)


def environment(planned: Stack, name: str) -> dict[str, str]:
    """Return what a process is told, of our own names."""
    command = planned.programs[name].command()
    return {key: value for key, value in command.env.items() if key.startswith("KITE_")}


def test_the_key_to_the_simulator_reaches_nobody_else(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults on demand need it, and it is a secret of the caller's."""
    monkeypatch.setenv("KITE_SIM_CONTROL_TOKEN", "the-key")
    planned = stack(place)
    told = [name for name in planned.programs if name not in ("nats", "postgres")]
    knowing = [name for name in told if "the-key" in environment(planned, name).values()]
    assert knowing == ["simulator"]


def test_every_need_is_a_unit_or_a_milestone(place: Path) -> None:
    """Otherwise somebody would wait for ever."""
    planned = stack(place)
    known = {unit.name for unit in planned.units} | set(MILESTONES)
    for unit in planned.units:
        assert unit.needs <= known
        assert unit.name in planned.programs


def test_the_feed_stops_first_and_the_servers_last(place: Path) -> None:
    """So that what is under way still finds its way down."""
    stages = {unit.name: unit.stop_stage for unit in stack(place).units}
    order = ["ingest", "simulator", "signals", "writer", "nats"]
    assert [stages[name] for name in order] == sorted(stages[name] for name in order)
    assert stages["ingest"] < stages["indicators"] < stages["signals"] < stages["writer"]
    assert stages["nats"] == stages["postgres"] == max(stages.values())


def test_each_process_gets_its_own_credentials_only(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret of the caller's or of a neighbour is in nobody's environment."""
    monkeypatch.setenv("KITE_SCHWAB_APP_SECRET", "secret-of-the-caller")
    monkeypatch.setenv("KITE_NOTIFIER_TOKEN", "token-of-the-caller")
    planned = stack(place)
    passwords = {**planned.credentials.nats, **planned.credentials.postgres}
    allowed = {
        "ingest": {"ingest"},
        "indicators": {"indicators"},
        "signals": {"signals"},
        "writer": {"writer", "kite_owner"},
        "simulator": set(),
        BOOTSTRAP: {"admin", "kite_owner"},
    }
    for name, users in allowed.items():
        told = " ".join(environment(planned, name).values())
        assert "of-the-caller" not in told, name
        assert {user for user, password in passwords.items() if password in told} == users, name


def test_settings_of_the_caller_pass_through(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tunes a service sets its variable; what the plan decides stays decided."""
    monkeypatch.setenv("KITE_WRITER_FLUSH_MS", "100")
    monkeypatch.setenv("KITE_TICKERS", "TSLA")
    planned = stack(place)
    assert environment(planned, "writer")["KITE_WRITER_FLUSH_MS"] == "100"
    assert environment(planned, "ingest")["KITE_TICKERS"] == "QQQ,SPY"


def test_the_account_has_no_simulator_and_gets_the_real_keys(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ingest and the job see them, and nobody a base address that leads elsewhere."""
    for name, value in OUR_KEYS.items():
        monkeypatch.setenv(name, value)
    planned = stack(place, SCHWAB)
    assert "simulator" not in planned.programs
    assert OUR_KEYS.items() <= environment(planned, "ingest").items()
    assert "KITE_SCHWAB_BASE_URL" not in environment(planned, "ingest")
    for name in ("indicators", "signals", "writer"):
        assert "real-secret" not in " ".join(environment(planned, name).values())


def test_source_partitions_and_speed_reach_those_who_need_them(place: Path) -> None:
    """Every service on the bus agrees on what the store is."""
    planned = stack(place, partitions=4, speed=60)
    for name, program in planned.programs.items():
        if isinstance(program, ServiceProgram) and name != "simulator":
            told = environment(planned, name)
            assert (told["KITE_SOURCE"], told["KITE_PARTITIONS"]) == ("demo", "4")
    assert environment(planned, "simulator")["KITE_SIM_SPEED"] == "60"


def test_a_port_that_was_asked_for_and_is_taken_is_refused(place: Path) -> None:
    """The option is in the line."""
    home, store = Home(place), Store(place / "demo")
    home.prepare()
    store.claim(StoreIdentity("demo", 1))
    with Ports() as ports, socket.create_server(("127.0.0.1", taken := ports.free())):
        wanted = UpOptions(home=place, nats_port=0, postgres_port=taken)
        with pytest.raises(SettingsError, match=f"--postgres-port {taken}"):
            build(home, store, DEMO, wanted, ports)


def test_a_usual_port_that_is_taken_is_replaced_and_told() -> None:
    """Nobody asked for it, so another one does."""
    with socket.create_server(("127.0.0.1", 0)) as taken, Ports() as ports:
        port = taken.getsockname()[1]
        chosen = ports.usual(port, None, "NATS", "--nats-port")
    assert chosen != port
    assert ports.notes == [f"port {port} is taken, NATS uses {chosen}"]


def test_two_stacks_that_start_at_once_choose_different_ports() -> None:
    """A port that one has chosen is no free one to others, though nobody listens on it yet."""
    with Ports() as ports:
        chosen = ports.free()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", chosen))
        with socket.create_server(("127.0.0.1", chosen)) as server:
            socket.create_connection(server.getsockname()).close()
        with socket.create_server(("127.0.0.1", chosen)):
            pass  # the one that it was chosen for comes back


def test_a_usual_port_goes_to_the_first_of_two_stacks_that_start_at_once() -> None:
    """The second is told of another one; later, when the first has gone, the usual one is free."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Ports() as first:
        assert first.usual(port, None, "NATS", "--nats-port") == port
        with Ports() as second:
            assert second.usual(port, None, "NATS", "--nats-port") != port
            with pytest.raises(SettingsError, match=f"--nats-port {port}"):
                second.usual(port, port, "NATS", "--nats-port")
        with socket.create_server(("127.0.0.1", port)):
            pass  # the one that it was chosen for
    with Ports() as later:
        assert later.usual(port, None, "NATS", "--nats-port") == port


def test_a_notifier_runs_only_where_somebody_is_to_be_told(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes memory; and it alone is told where to keep its journal."""
    monkeypatch.delenv("KITE_NOTIFY_FILE", raising=False)
    assert "notifier" not in stack(place).programs
    monkeypatch.setenv("KITE_NOTIFY_FILE", "notify.toml")
    planned = stack(place)
    told = environment(planned, "notifier")
    assert told["KITE_NOTIFY_FILE"] == str(Path("notify.toml").absolute())
    assert told["KITE_NOTIFIER_DATA_DIR"] == str(planned.store.root / "notifier")
    assert told["KITE_NATS_URL"].startswith("nats://notifier:")
    stages = {unit.name: unit.stop_stage for unit in planned.units}
    assert stages["signals"] < stages["notifier"] < stages["nats"]

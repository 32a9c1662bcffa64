"""Every container is killed, and stopped in good order, while a recording plays: nothing is lost.

Judged by an independent calculation from the recording, by the broker's own ledger, by what was
heard live, by a page that stayed open, and by a webhook that is told each signal once. Needs a
Docker daemon (`make containers`), and root.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from cli.state import StackState
from deploy.nats.policy import OBSERVER
from deploy.supabase.roles import DATABASE, READER
from libs.common.calendar import NEW_YORK
from tests.containers.definitions import LASTING
from tests.containers.judge import wrong_candles, wrong_ticks
from tests.containers.project import Project
from tests.containers.sink import SINK_URL, sink_service, told
from tests.containers.weight import too_heavy
from tests.e2e import oracle
from tests.e2e.recorded import cut
from tests.faults.ledger import read_ledger
from tests.faults.oracle import read_book
from tests.faults.page import Page
from tests.faults.recording import DAYS, write_recording
from tests.faults.watch import LiveTick, Watch
from tests.waiting import eventually, eventually_async

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    # What the clients leave behind when their server is killed is not ours to close.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning"),
]

# Two cores and one disk follow this in eleven containers, with room to catch up after a strike:
# each frame is synced before the next. So two days of trading take more than four minutes.
SPEED = "360"
PLAYED_DAYS = 2
TICKERS = ("META", "GE", "QQQ")
PLAYED_WITHIN_S = 300
MOVES_WITHIN_S = 60
# In the order of the flow, so that the ones behind a stopped one have something to wait for.
RESTARTED = (
    "nats",
    "postgres",
    "ingest",
    "indicators",
    "signals",
    "writer",
    "gateway",
    "notifier",
    "backup",
)
LEDGER = "/var/lib/kite/simulator/ledger.txt"
# At this pace all is old soon, and much comes in a minute.
NOTIFY = f"""
[channels.webhook]
url = "{SINK_URL}/signals"
per_minute_max = 600
pending_messages_max = 10000
late_s = 86400
too_old_s = 604800
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recorded days by ticker, in a folder that every account may read."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("recording")
    days = [day.isoformat() for day in DAYS[:PLAYED_DAYS]]
    files = {path.name.partition("-")[0]: path for path in write_recording(whole)}
    found = {ticker: cut(files[ticker], days, folder) for ticker in TICKERS}
    folder.chmod(0o755)
    return found


@pytest.fixture(scope="module")
def playing(built: Project, recording: dict[str, Path]) -> Iterator[Project]:
    """A project whose simulator plays the recording from its beginning, and keeps a ledger.

    Somebody is at a webhook who wants every signal, from the first one on.
    """
    folder = next(iter(recording.values())).parent
    notify = folder / "notify.toml"
    notify.write_text(NOTIFY)
    environment = {"KITE_TICKERS": ",".join(TICKERS), "KITE_SIM_SPEED": SPEED}
    with Project(KITE_NOTIFY_FILE=str(notify), **environment) as project:
        files = ",".join(f"{name}=/recording/{path.name}" for name, path in recording.items())
        simulator = {
            "KITE_SIM_CSV": files,
            "KITE_SIM_WAIT_FOR_SUBSCRIPTION": "1",
            "KITE_SIM_TICKS_PER_BAR": "4",
            "KITE_SIM_REQUESTS_PER_MINUTE": "0",
            "KITE_SIM_LEDGER_FILE": LEDGER,
        }
        # At this pace a second is six minutes: history is asked for accordingly.
        ingest = {
            "KITE_INGEST_REQUESTS_PER_MINUTE_MAX": "100000",
            "KITE_INGEST_RECONNECT_FIRST_MS": "100",
        }
        mount = f"{folder}:/recording:ro"
        project.amend(
            {
                "services": {
                    "simulator": {"environment": simulator, "volumes": [mount]},
                    "ingest": {"environment": ingest},
                    "sink": sink_service("notify-outside"),
                }
            }
        )
        project.up(["sink", "notifier"])
        project.up(built.definition.services.keys() & {"secrets", "init", *LASTING})
        yield project


class Servers:
    """Where a project's servers are, with logins that may read everything."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._kept = json.loads(project.init("cat", "/run/kite/init/credentials.json"))
        self.find()

    def find(self) -> None:
        """Look again: a container that was started anew may have another address."""
        nats, postgres = self._kept["nats"][OBSERVER], self._kept["postgres"][READER]
        database = self._project.address("postgres", "database")
        ports = self._project.ports
        self.state = StackState(
            nats=f"nats://{OBSERVER}:{nats}@127.0.0.1:{ports['nats']}",
            postgres=f"postgresql://{READER}:{postgres}@{database}/{DATABASE}",
            gateway=f"http://127.0.0.1:{ports['gateway']}",
            schwab=None, services={}, servers={}, running=True, ready=True, home="",
        )  # fmt: skip


class Play:
    """A recording that plays in containers, and everybody who looks on."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.servers = Servers(project)
        self.live: dict[tuple[str, int], LiveTick] = {}
        self.contradictions: list[str] = []
        self.watch = Watch(lambda: self.servers.state, 1, self.live, self.contradictions)
        self.page = Page(TICKERS[0], DAYS[0], lambda: self.servers.state.gateway)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Listen to the live ticks and keep a page open."""
        await self.watch.start()
        self.page.open()
        try:
            yield
        finally:
            await self.watch.stop()
            await self.page.close()

    async def candles(self) -> int:
        """Count what is stored; 0 while the database is away."""
        with suppress(AssertionError):
            ((count,),) = await self.watch.read("SELECT count(*) FROM candles")
            return int(count)
        return 0

    async def more_candles(self, than: int, within_s: float, what: str) -> None:
        """Return when more than so many are stored."""

        async def more() -> bool:
            return await self.candles() > than

        await eventually_async(more, within_s, f"more than {than} candles after {what}")

    async def strike(self, service: str, kind: str) -> None:
        """Kill a container or stop it in good order, and see the rows grow again."""
        if kind == "kill":
            await asyncio.to_thread(self.project.kill, service)
        else:
            await asyncio.to_thread(self.project.compose, "restart", service)
            await asyncio.to_thread(self.project.await_ready, service)
        if service == "postgres":
            await asyncio.to_thread(self.servers.find)
        await self.more_candles(await self.candles(), MOVES_WITHIN_S, f"{kind} {service}")


def test_nothing_is_lost_or_doubled(
    playing: Project, recording: dict[str, Path], report: list[str]
) -> None:
    """Kills and restarts of each container: candles and signals exact, each tick accounted for."""
    candles = {name: oracle.candles(oracle.minute_bars(path)) for name, path in recording.items()}
    expected = sum(map(len, candles.values()))
    play = Play(playing)

    async def run() -> list[str]:
        async with play.watched():
            for kind, services in (("kill", LASTING), ("restart", RESTARTED)):
                for service in services:
                    await play.strike(service, kind)
            assert await play.candles() < expected, "the strikes came when all was over"
            heavy = await asyncio.to_thread(too_heavy, playing, f"at {SPEED} times it", report)
            await play.more_candles(expected - 1, PLAYED_WITHIN_S, "the last minute")
            return [*heavy, *await judged(play, recording)]

    found = asyncio.run(run())
    gc.collect()
    assert found == []
    signals = told_each_once(playing)
    assert play.contradictions == []
    assert play.page.contradictions == []
    for service in LASTING:
        playing.await_healthy(service)
    report.append(
        f"{len(LASTING)} kills and {len(RESTARTED)} restarts of containers: {expected} candles "
        f"exact, {len(play.live)} live ticks and {play.page.told} on the page as stored, {signals} "
        "signals told"
    )


def told_each_once(project: Project) -> int:
    """Wait until the webhook was told every stored signal; return how many there are.

    One that was told twice says so, and only with the key of the first time. One that no longer
    holds was told to be withdrawn.
    """
    stored = dict(row.split("|") for row in project.rows("SELECT id, state FROM signals"))
    active = {key for key, state in stored.items() if state == "active"}

    def keys() -> list[str]:
        return [each.key.removeprefix("webhook:signal:") for each in told(project)]

    eventually(lambda: active <= set(keys()), MOVES_WITHIN_S, "every signal is told")
    again = [each for each in told(project) if each.title.startswith("(repeated?)")]
    news = [key for key in keys() if "@" not in key]
    assert len(keys()) - len(set(keys())) <= len(again) <= 1, "twice, without saying so"
    changed = {key.partition("@")[0] for key in keys() if "@" in key}
    assert set(news) - active <= changed <= stored.keys()
    return len(active)


async def judged(play: Play, recording: dict[str, Path]) -> list[str]:
    """Return everything that is wrong with the rows, and with what was told of them."""
    connection = await asyncpg.connect(play.servers.state.postgres)
    try:
        found = []
        for ticker, path in recording.items():
            found += await wrong_candles(connection, ticker, path)
    finally:
        await connection.close()
    ledger = next(iter(recording.values())).parent / "ledger.txt"
    play.project.compose("cp", f"simulator:{LEDGER}", str(ledger))
    book = await read_book(play.watch.read)
    found += wrong_ticks(book, read_ledger(ledger), play.live.values())
    ends_ms = int(dt.datetime.combine(DAYS[0], dt.time.max, NEW_YORK).timestamp() * 1000)
    return [*found, *play.page.differs(book.ticks[play.page.ticker], ends_ms)]

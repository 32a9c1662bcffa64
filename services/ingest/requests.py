"""What people may ask of ingest, and how it is done: tickers, backfills, imports.

`Requests` stands between the desk and the parts that do the work. Its handlers say what a command
makes of the desk; `on_change` carries out what is on record; `refreshed` says what has come of it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from libs.common import calendar
from libs.common.commands import BadCommand
from libs.common.events import HistoryBar
from services.ingest import watchlist, wire
from services.ingest.backfill import Backfill
from services.ingest.commands import Done, Handler
from services.ingest.core import Core, DayAnswer, DayWanted
from services.ingest.desk import Desk, TickerState
from services.ingest.metrics import IngestMetrics
from services.ingest.orders import Progress, kept, placed
from services.ingest.settings import TICKERS_MAX, Settings, Ticker
from services.ingest.subscriber import Subscriber
from services.ingest.watchlist import Refusal
from services.ingest.wire import CHART, LEVEL_ONE

__all__ = ["KNOWN_MAX", "Requests", "pack_bars"]

# Each ticker that was ever asked for is remembered, in a checkpoint that is one message.
KNOWN_MAX = 400
_IMPORT_BYTES_MAX = 256 << 10
_NAMES = {LEVEL_ONE: "quotes", CHART: "minute bars"}

Tickers = Annotated[tuple[Ticker, ...], Meta(min_length=1, max_length=TICKERS_MAX)]


class AddTickers(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `tickers-add`; `first` puts them before all others."""

    tickers: Tickers
    first: bool = False


class RemoveTickers(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `tickers-remove`."""

    tickers: Tickers


class BackfillDays(
    Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}
):
    """Arguments of `backfill`: New York days, both included; see `orders.placed` without them."""

    tickers: Tickers
    first: dt.date | None = None
    last: dt.date | None = None


class CancelBackfill(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `backfill-cancel`; without an id everything that runs is cancelled."""

    id: str = ""


class ImportDay(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `import`: one ticker's complete day, as `pack_bars` packs it."""

    ticker: Ticker
    day: dt.date
    bars: str


def pack_bars(bars: Sequence[HistoryBar]) -> str:
    """Return minute bars as text that fits a command."""
    return base64.b64encode(zlib.compress(msgspec.msgpack.encode(bars), 9)).decode()


class Requests:
    """The handlers of all commands, and what they share."""

    def __init__(
        self,
        settings: Settings,
        core: Core,
        subscriber: Subscriber,
        backfill: Backfill,
        metrics: IngestMetrics,
        *,
        adjust: Callable[[], None],
        stored: Callable[[], bool],
        publish_day: Callable[[DayAnswer], Awaitable[str]],
    ) -> None:
        """`stored` tells whether everything is stored that was offered to the bus.

        `publish_day` publishes a day, and returns what came of it once that is stored.
        """
        self._settings = settings
        self._core = core
        self._subscriber = subscriber
        self._backfill = backfill
        self._metrics = metrics
        self._adjust = adjust
        self._stored = stored
        self._publish_day = publish_day
        self._progress = Progress()
        self._trouble = ""
        self._desk: Desk | None = None

    def handlers(self) -> dict[str, Handler[Any]]:
        """Return all commands by name."""
        return {
            "tickers-add": Handler(AddTickers, self._add),
            "tickers-remove": Handler(RemoveTickers, self._remove),
            "backfill": Handler(BackfillDays, self._place),
            "backfill-cancel": Handler(CancelBackfill, self._cancel),
            "import": Handler(ImportDay, self._import),
        }

    # -- the desk --

    def on_change(self, desk: Desk) -> None:
        """Carry out what is on record."""
        self._desk = desk
        self._progress.recorded(desk.orders)
        self._subscriber.wanted = desk.tickers
        self._adjust()
        self._feed()

    def refreshed(self, desk: Desk) -> Desk:
        """Return the desk with what came of it meanwhile."""
        orders = self._progress.settled(desk.orders) if self._stored() else desk.orders
        running = any(order.state == "running" for order in orders)
        return replace(
            desk,
            orders=orders,
            feed=tuple(self._standing(ticker) for ticker in desk.tickers),
            caps=dict(self._subscriber.caps),
            trouble=self._trouble if running else "",
        )

    def answered(self, wanted: DayWanted, outcome: str) -> None:
        """Price history was answered, and its bars were taken by the publisher."""
        if self._progress.answered(wanted, outcome):
            self._metrics.backfill_days.labels(outcome).inc()
            self._trouble = ""
            self._feed()

    def refused(self, wanted: DayWanted) -> None:
        """Price history was answered, and there was no room for its bars: ask again."""
        self._progress.again(wanted)

    def failed(self, wanted: DayWanted, reason: str) -> None:
        """A request for history failed and will be repeated."""
        if wanted.changes_only:
            self._trouble = reason

    def _feed(self) -> None:
        """Ask for the next days of the orders."""
        if self._desk is None:
            return
        for wanted in self._progress.next(self._desk.orders):
            self._backfill.want(wanted)
        running = [order for order in self._desk.orders if order.state == "running"]
        self._metrics.backfill_left.set(sum(order.units - order.finished for order in running))

    def _standing(self, ticker: str) -> TickerState:
        subscriber = self._subscriber
        ticks, bars = ticker in subscriber.level_one, ticker in subscriber.bars
        if not subscriber.connected:
            return TickerState(ticker, "waiting", reason="not connected to the broker")
        if ticks and bars:
            if self._core.imaged(ticker):
                return TickerState(ticker, "streaming", ticks, bars)
            return TickerState(ticker, "quiet", ticks, bars, "nothing came yet; a known symbol?")
        if subscriber.outdated:
            return TickerState(ticker, "waiting", ticks, bars, "about to be asked for")
        return TickerState(ticker, "dropped", ticks, bars, self._cap_reason(ticks=ticks, bars=bars))

    def _cap_reason(self, *, ticks: bool, bars: bool) -> str:
        missing = [LEVEL_ONE] * (not ticks) + [CHART] * (not bars)
        caps = self._subscriber.caps
        parts = [f"{_NAMES[name]} of {caps[name]}" for name in missing if name in caps]
        return f"the broker sends {' and '.join(parts)} tickers at most" if parts else "refused"

    # -- tickers --

    async def _add(self, asked: AddTickers, _: str, desk: Desk) -> Done:
        self._require_known(asked.tickers)
        tickers = watchlist.added(desk.tickers, asked.tickers, first=asked.first)
        most = self._settings.polled_max
        if self._settings.ingest_feed == "poll" and len(tickers) > most:
            raise Refusal(
                f"that makes {len(tickers)} tickers, but polling has requests for {most} only: "
                f"remove {len(tickers) - most} others first"
            )
        fresh = [ticker for ticker in dict.fromkeys(asked.tickers) if ticker not in desk.tickers]
        text = f"added {', '.join(fresh)}" if fresh else "on the list already"
        text += f"; {len(tickers)} tickers"
        for service, cap in self._subscriber.caps.items():
            if len(tickers) > cap:
                dropped = ", ".join(tickers[cap:])
                text += f"; the broker sends {_NAMES[service]} of {cap} at most: without {dropped}"
        return Done(replace(desk, tickers=tickers), text)

    async def _remove(self, asked: RemoveTickers, _: str, desk: Desk) -> Done:
        tickers = watchlist.removed(desk.tickers, asked.tickers)
        gone = ", ".join(dict.fromkeys(asked.tickers))
        return Done(replace(desk, tickers=tickers), f"removed {gone}; {len(tickers)} tickers")

    def _require_known(self, tickers: Sequence[str]) -> None:
        if len(self._core.known.union(tickers)) > KNOWN_MAX:
            raise Refusal(
                f"this store has met {len(self._core.known)} tickers, and remembers {KNOWN_MAX} at "
                "most: begin a new store for others"
            )

    # -- history --

    async def _place(self, asked: BackfillDays, command_id: str, desk: Desk) -> Done:
        self._require_known(asked.tickers)
        order = placed(command_id, asked.tickers, asked.first, asked.last, self._core.broker_ms)
        for other in desk.orders:
            same = (other.tickers, other.first_day, other.last_day)
            if other.state == "running" and same == (
                order.tickers, order.first_day, order.last_day,
            ):  # fmt: skip
                text = f"{other.id}: under way already, {other.finished} of {other.units} days"
                return Done(desk, text)
        text = f"{order.id}: {order.units} days of {len(order.tickers)} tickers to ask for"
        return Done(replace(desk, orders=kept(desk.orders, order)), text)

    async def _cancel(self, asked: CancelBackfill, _: str, desk: Desk) -> Done:
        orders = self._progress.settled(desk.orders) if self._stored() else desk.orders
        chosen = [o.id for o in orders if o.state == "running" and asked.id in ("", o.id)]
        if not chosen:
            raise Refusal(f"no backfill {asked.id} is under way".replace("  ", " "))
        orders = tuple(replace(o, state="cancelled") if o.id in chosen else o for o in orders)
        return Done(replace(desk, orders=orders), f"cancelled {', '.join(chosen)}")

    async def _import(self, asked: ImportDay, _: str, desk: Desk) -> Done:
        if self._settings.source != "csv":
            raise Refusal(
                f"this store holds data of the source {self._settings.source}; bars of a file "
                "belong into a store of files: start one with ./kite up --csv FILE"
            )
        self._require_known((asked.ticker,))
        bars = _unpacked(asked)
        if not self._core.broker_ms or asked.day >= calendar.day_of(self._core.broker_ms):
            raise Refusal(f"{asked.ticker} {asked.day}: not over yet for this store; left out")
        day_ms = calendar.day_start_ms(bars[0].ts_ms)
        answer = DayAnswer(asked.ticker, day_ms, self._core.broker_ms, bars)
        outcome = await self._publish_day(answer)
        if outcome == "no room":
            raise Refusal(f"{asked.ticker} {asked.day}: no room for it now; import it again later")
        return Done(desk, f"{asked.ticker} {asked.day}: {len(bars)} minutes, {outcome}")


def _unpacked(asked: ImportDay) -> list[HistoryBar]:
    """Return the bars of an import, each of them checked; raises BadCommand."""
    try:
        raw = base64.b64decode(asked.bars, validate=True)
        data = zlib.decompressobj().decompress(raw, _IMPORT_BYTES_MAX)
        bars = msgspec.msgpack.decode(data, type=list[HistoryBar])
        for bar in bars:
            for price in (bar.open, bar.high, bar.low, bar.close):
                if wire.price(price) != price:
                    raise BadCommand(f"import: {price} has more than four decimals")
            wire.whole(bar.volume)
            wire.check_bar(bar.ts_ms, bar.open, bar.high, bar.low, bar.close)
    except (binascii.Error, zlib.error, msgspec.MsgspecError, wire.BadItem) as error:
        raise BadCommand(f"import: {error}") from None
    times = [bar.ts_ms for bar in bars]
    if not times or sorted(set(times)) != times:
        raise BadCommand("import: the minutes of a day must ascend, and there must be some")
    if {calendar.day_of(times[0]), calendar.day_of(times[-1])} != {asked.day}:
        raise BadCommand(f"import: the minutes are not all of {asked.day}")
    return bars

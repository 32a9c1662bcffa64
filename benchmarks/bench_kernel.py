"""The indicator kernel beside talipp, Nautilus, and a recomputation of the day with pandas.

All get the same rows and give SMA9 and VWAP after each; the values are compared before anything is
reported. Rates count the processor time of the best of some rounds, objects of each library's own
input type in hand. Ours rounds to six decimals and theirs do not, which is all that may differ.

- `kernel_ticks_*`: ticks of many tickers in turn. Ours is what the service does for one tick, which
  is more than the two averages: the day's turn, the minute in the making, and the event to publish.
- `kernel_bars_*`: a session of minute bars, one timeframe; ours also makes the candle to publish.
- `kernel_candles_*`: the same bars as the service takes them: the candles of four timeframes, with
  both averages in each and buckets by the calendar, against the same one timeframe of the rivals.
- `..._recompute`: the specification's way, the whole day anew after each row, with pandas, measured
  on one ticker and with every row of its day.

Run it as `python -m benchmarks.bench_kernel [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks import rivals
from benchmarks.report import report
from libs.common.events import Bar, Candle, Tick, TickIndicator
from services.indicators.candles import Book, Series
from services.indicators.settings import Definition
from services.indicators.ticks import Ticks

OPEN_MS = 1_689_168_600_000  # Wednesday 12 July 2023, 09:30 in New York
SECOND_MS, MINUTE_MS = 1_000, 60_000
TICKERS = 250
TICKS, TICKS_SHORT = 400, 80  # for each ticker
MINUTES, MINUTES_SHORT = 390, 80
ROUNDS = 3  # the best one counts: the machine is shared
PERIOD = 9
# Half of the sixth decimal, and what floats lose in a sum over a day.
TOLERANCE = 0.5e-6 + 1e-9

Row = tuple[int, int, float, int]  # ticker, epoch seconds, price, volume
Values = Sequence[tuple[float | None, float | None]]


def walk(steps: int, step_ms: int) -> list[Row]:
    """Return rows of all tickers in turn, each on a random walk in cents."""
    chance = random.Random(3)
    cents = [chance.randrange(5_000, 50_000) for _ in range(TICKERS)]
    rows = []
    for step in range(steps):
        at_s = (OPEN_MS + step * step_ms) // 1000
        for ticker in range(TICKERS):
            cents[ticker] += chance.choice((-1, 0, 1))
            rows.append((ticker, at_s, cents[ticker] / 100, chance.randrange(1, 500)))
    return rows


def best_s(work: Callable[[], object]) -> float:
    """Return the least processor time of some rounds, in seconds."""
    times_s = []
    for _ in range(ROUNDS):
        started_s = time.process_time()
        work()
        times_s.append(time.process_time() - started_s)
    return max(min(times_s), 1e-9)


def our_ticks(rows: Sequence[Row]) -> tuple[float, Values]:
    """Return what the ticks took and their values."""
    ticks = [
        (ticker, Tick(f"T{ticker:03d}", at_s * 1000, price, volume, volume, None, None))
        for ticker, at_s, price, volume in rows
    ]
    out: list[TickIndicator] = []

    def go() -> None:
        out.clear()
        states = [Ticks(continuous=False) for _ in range(TICKERS)]
        for ticker, tick in ticks:
            made = states[ticker].step(tick)
            out.append(made)

    return best_s(go), [(made.sma9, made.vwap) for made in out]


def our_bars(rows: Sequence[Row]) -> tuple[float, Values]:
    """Return what the bars took as a series of minutes, and their values."""
    bars = bars_of(rows)
    out: list[Candle] = []

    def go() -> None:
        out.clear()
        states = [Series(f"T{n:03d}", "1m", Definition()) for n in range(TICKERS)]
        for ticker, bar in bars:
            states[ticker].add(bar)
            out.append(states[ticker].close("stream", 0))

    return best_s(go), [(made.sma9, made.vwap) for made in out]


def our_candles(rows: Sequence[Row]) -> tuple[float, Values]:
    """Return what the bars took in all timeframes, and the values of the minutes."""
    bars = bars_of(rows)
    out: list[Candle] = []

    def go() -> None:
        out.clear()
        books = [Book(f"T{n:03d}", Definition(), lambda _: None) for n in range(TICKERS)]
        for ticker, bar in bars:
            out.extend(books[ticker].add(bar))

    return best_s(go), [(made.sma9, made.vwap) for made in out if made.timeframe == "1m"]


def bars_of(rows: Sequence[Row]) -> list[tuple[int, Bar]]:
    """Return the rows as minute bars."""
    return [
        (ticker, Bar(f"T{ticker:03d}", "1m", at_s * 1000, price, price, price, price, volume))
        for ticker, at_s, price, volume in rows
    ]


def recomputed(rows: Sequence[Row]) -> tuple[float, Values]:
    """Return the time for a day of one ticker, computed anew after each row, and the values."""
    day = pd.DataFrame(
        {"close": [row[2] for row in rows], "volume": [row[3] for row in rows]},
    )
    values: list[tuple[float | None, float | None]] = []
    started_s = time.process_time()
    for count in range(1, len(day) + 1):
        so_far = day.iloc[:count].copy()
        so_far["sma9"] = so_far["close"].rolling(window=PERIOD).mean()
        money = (so_far["close"] * so_far["volume"]).cumsum()
        so_far["vwap"] = money / so_far["volume"].cumsum()
        last = so_far.iloc[-1]
        values.append((None if pd.isna(last["sma9"]) else float(last["sma9"]), float(last["vwap"])))
    return time.process_time() - started_s, values


def require_equal(name: str, ours: Values, theirs: Values) -> None:
    """Raise ValueError unless both gave the same values, but for our rounding."""
    if len(ours) != len(theirs):
        raise ValueError(f"{name}: {len(theirs)} values for our {len(ours)}")
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if not all(map(is_equal, mine, other)):
            raise ValueError(f"{name}: row {place} gives {other}, ours {mine}")


def is_equal(ours: float | None, theirs: float | None) -> bool:
    """Tell whether two values are the same but for our rounding."""
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= TOLERANCE


def compare(rows: Sequence[Row], ours: dict[str, tuple[float, Values]], home: Path) -> None:
    """Run every rival on the rows that ours had, check the values, report all rates."""
    source, target = home / "rows.json", home / "values.json"
    source.write_text(json.dumps(rows), encoding="utf-8")
    times_s: dict[str, float] = {}
    for name in ("talipp", "nautilus"):
        result = rivals.run("kernels", name, str(ROUNDS), str(source), str(target))
        times_s[name] = result["cpu_s"] / len(rows)
        values = json.loads(target.read_text(encoding="utf-8"))
        for _, mine in ours.values():
            require_equal(f"{name} {result['version']}", mine, values)
    first = [row for row in rows if row[0] == 0]
    spent_s, recomputed_values = recomputed(first)
    times_s["recompute"] = spent_s / len(first)
    for kind, (own_s, mine) in ours.items():
        require_equal("pandas", mine[::TICKERS], recomputed_values)
        for name, time_s in times_s.items():
            report(f"kernel_{kind}_{name}", "rows/s", len(rows) / own_s, 1 / time_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The indicator kernel beside others.")
    parser.add_argument("--short", action="store_true", help="fewer rows")
    short = parser.parse_args().short
    with tempfile.TemporaryDirectory(prefix="kite-") as home:
        rows = walk(TICKS_SHORT if short else TICKS, SECOND_MS)
        compare(rows, {"ticks": our_ticks(rows)}, Path(home))
        rows = walk(MINUTES_SHORT if short else MINUTES, MINUTE_MS)
        compare(rows, {"bars": our_bars(rows), "candles": our_candles(rows)}, Path(home))


if __name__ == "__main__":
    main()

"""What the pure cores of indicators and signals cost, against pandas on the same input.

Two baselines, both in this process and run. `recompute` is the usual way to keep a table of
indicators: whenever a frame comes, put its ticks to the day's and compute the day anew; what is
timed is one such pass late in the run. `one pass` is pandas at its best: all ticks at once, after
the fact, which no live service can do; that row is here to be lost. Rates count processor time.

Run it as `python -m benchmarks.bench_indicators [--short]`; it prints one JSON line per figure.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

import pandas as pd

from benchmarks.report import report
from libs.common.codec import FRAME_BYTES_MAX, decode_frame, encode_frame
from libs.common.events import SCHEMA_VERSION, Bar, Event, Frame, History, HistoryBar, Tick
from services.indicators.core import Operator
from services.indicators.settings import Definition
from services.signals.core import Operator as SignalOperator

TICKERS = 250
FRAMES, FRAMES_SHORT = 400, 60
CHECKPOINT_TICKERS = 300
ROUNDS = 3  # the best one counts: the machine is shared
# Wednesday 12 July 2023, New York: midnight, the pre-market's and the regular session's open.
DAY_MS = 1_689_134_400_000
PRE_OPEN_MS = DAY_MS + 7 * 3_600_000
OPEN_MS = DAY_MS + 9 * 3_600_000 + 1_800_000
MINUTE_MS = 60_000
DAY_MINUTES = 13 * 60


def frame(events: Sequence[Event], n: int) -> Frame:
    """Put events into a frame."""
    return Frame(SCHEMA_VERSION, 1, n, 0, 0, OPEN_MS, OPEN_MS, tuple(events))


def tick_frames(count: int) -> list[bytes]:
    """Return frames with a tick of every ticker, a second apart."""
    chance = random.Random(1)
    prices = [100 + chance.random() * 300 for _ in range(TICKERS)]
    totals = [0] * TICKERS
    frames = []
    for n in range(count):
        ticks = []
        for i in range(TICKERS):
            prices[i] = round(prices[i] + chance.choice((-0.01, 0, 0.01)), 4)
            volume = chance.randrange(1, 500)
            totals[i] += volume
            bid, ask = round(prices[i] - 0.01, 4), round(prices[i] + 0.01, 4)
            ticks.append(
                Tick(f"T{i:03d}", OPEN_MS + n * 1000 + i, prices[i], volume, totals[i], bid, ask)
            )
        frames.append(encode_frame(frame(ticks, n + 1)))
    return frames


def walk(count: int, seed: int = 2) -> list[HistoryBar]:
    """Return minutes of a random walk from the pre-market's open on."""
    chance = random.Random(seed)
    close, bars = 100.0, []
    for n in range(count):
        opened, close = close, round(close + chance.gauss(0, 0.2), 2)
        high, low = max(opened, close), min(opened, close)
        volume = chance.randrange(100, 100_000)
        bars.append(HistoryBar(PRE_OPEN_MS + n * MINUTE_MS, opened, high, low, close, volume))
    return bars


def best_s(work: Callable[[], object]) -> float:
    """Return the least processor time of some rounds, in seconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return max(min(times), 1e-9)


def table(frames: Sequence[bytes]) -> pd.DataFrame:
    """Return all ticks as pandas likes them best: columns, one row a tick."""
    ticks = [t for data in frames for t in decode_frame(data).events if isinstance(t, Tick)]
    names = ("ticker", "price", "volume")
    return pd.DataFrame({name: [getattr(tick, name) for tick in ticks] for name in names})


def recompute(ticks: pd.DataFrame) -> pd.DataFrame:
    """Compute sma9 and vwap of every ticker from all of its ticks."""
    groups = ticks.groupby("ticker", sort=False)
    sma9 = groups["price"].rolling(9).mean().reset_index(level=0, drop=True)
    money = (ticks["price"] * ticks["volume"]).groupby(ticks["ticker"], sort=False).cumsum()
    vwap = money / groups["volume"].cumsum()
    return pd.DataFrame({"sma9": sma9.round(6), "vwap": vwap.round(6)})


def bench_ticks(count: int) -> None:
    """Measure ticks through indicators, and the answers through signals."""
    frames = tick_frames(count)
    answers: list[bytes] = []

    def through_indicators() -> None:
        answers.clear()
        operator = Operator()
        for n, data in enumerate(frames, 1):
            answers.append(encode_frame(frame(operator.step(decode_frame(data)), n)))

    def through_signals() -> None:
        operator = SignalOperator(("tick", "1m"))
        for n, data in enumerate(answers, 1):
            encode_frame(frame(operator.step(decode_frame(data)), n))

    total = count * TICKERS
    ticks = table(frames)
    ours_s = best_s(through_indicators)
    pass_s = best_s(lambda: recompute(ticks))
    report("indicators_ticks_recompute", "ticks/s", total / ours_s, TICKERS / pass_s)
    report("indicators_ticks_one_pass", "ticks/s", total / ours_s, total / pass_s)
    signals_s = best_s(through_signals)
    report("signals_ticks_recompute", "ticks/s", total / signals_s, TICKERS / pass_s)


def bench_history() -> None:
    """Measure one corrected day: four timeframes from 780 minutes, against the same in pandas."""
    bars = walk(DAY_MINUTES)
    data = encode_frame(frame([History("QQQ", DAY_MS, tuple(bars))], 1))
    names = ("ts_ms", "open", "high", "low", "close", "volume")
    rows = pd.DataFrame({name: [getattr(bar, name) for bar in bars] for name in names})
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}

    def in_pandas() -> None:
        for minutes in (1, 5, 15, 60):
            start = rows["ts_ms"] // (minutes * MINUTE_MS)
            made = rows.groupby(start).agg(how)
            made["sma9"] = made["close"].rolling(9).mean()
            made["vwap"] = (made["close"] * made["volume"]).cumsum() / made["volume"].cumsum()

    ours_s = best_s(lambda: encode_frame(frame(Operator().step(decode_frame(data)), 1)))
    report("indicators_history_day", "days/s", 1 / ours_s, 1 / best_s(in_pandas))


def bench_checkpoint() -> None:
    """Measure the checkpoint of a full partition with all extras, against what a message holds."""
    operator = Operator(Definition(extras=("ema9", "rsi14", "atr14", "bollinger20")))
    walks = [walk(60, seed=i) for i in range(CHECKPOINT_TICKERS)]
    for n, minutes in enumerate(zip(*walks, strict=True), 1):
        bars = [
            Bar(f"T{i:03d}", "1m", m.ts_ms, m.open, m.high, m.low, m.close, m.volume)
            for i, m in enumerate(minutes)
        ]
        operator.step(frame(bars, n))
    report("indicators_checkpoint", "bytes", len(operator.snapshot()), FRAME_BYTES_MAX)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Indicators and signals against pandas.")
    parser.add_argument("--short", action="store_true", help="fewer frames")
    short = parser.parse_args().short
    bench_ticks(FRAMES_SHORT if short else FRAMES)
    bench_history()
    bench_checkpoint()


if __name__ == "__main__":
    main()

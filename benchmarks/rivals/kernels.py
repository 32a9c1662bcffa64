"""SMA9 and VWAP by talipp and by Nautilus: one update at a time, all values read back.

    python -m benchmarks.rivals.kernels talipp|nautilus ROUNDS INPUT OUTPUT

INPUT and OUTPUT are JSON files. The input is a list of rows in order of time: the number of the
ticker, epoch seconds, price, volume. Before the clock starts each row is turned into the object
that the library takes. The output is a list of [sma9, vwap] for the rows. Prints the version and
the least processor time of the rounds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PERIOD = 9

Values = list[tuple[float | None, float | None]]
Rows = Sequence[tuple[int, int, float, int]]


def talipp(rows: Rows) -> Callable[[], Values]:
    """Return a run through talipp: `add` one value, look at the newest result."""
    from talipp.indicators import SMA, VWAP
    from talipp.ohlcv import OHLCV

    tickers = 1 + max(row[0] for row in rows)
    inputs = [
        (ticker, price, OHLCV(price, price, price, price, volume))
        for ticker, _, price, volume in rows
    ]

    def go() -> Values:
        pairs = [(SMA(PERIOD), VWAP()) for _ in range(tickers)]
        values: Values = []
        for ticker, price, bar in inputs:
            sma, vwap = pairs[ticker]
            sma.add(price)
            vwap.add(bar)
            values.append((sma[-1], vwap[-1]))
        return values

    return go


def nautilus(rows: Rows) -> Callable[[], Values]:
    """Return a run through Nautilus's compiled indicators by `update_raw`, its shortest way in."""
    from nautilus_trader.indicators import SimpleMovingAverage, VolumeWeightedAveragePrice

    tickers = 1 + max(row[0] for row in rows)
    inputs = [
        (ticker, price, float(volume), datetime.fromtimestamp(at_s, UTC))
        for ticker, at_s, price, volume in rows
    ]

    def go() -> Values:
        pairs = [
            (SimpleMovingAverage(PERIOD), VolumeWeightedAveragePrice()) for _ in range(tickers)
        ]
        values: Values = []
        for ticker, price, volume, at in inputs:
            sma, vwap = pairs[ticker]
            sma.update_raw(price)
            vwap.update_raw(price, volume, at)
            values.append((sma.value if sma.initialized else None, vwap.value))
        return values

    return go


LIBRARIES: dict[str, tuple[str, Callable[[Rows], Callable[[], Values]]]] = {
    "talipp": ("talipp", talipp),
    "nautilus": ("nautilus_trader", nautilus),
}


def main(arguments: Sequence[str]) -> None:
    """Run the rounds, write the values of the last one, print what the best one took."""
    name, rounds, source, target = arguments
    distribution, prepare = LIBRARIES[name]
    go = prepare(json.loads(Path(source).read_text(encoding="utf-8")))
    times_s, values = [], list[Any]()
    for _ in range(int(rounds)):
        values.clear()
        started_s = time.process_time()
        values = go()
        times_s.append(time.process_time() - started_s)
    Path(target).write_text(json.dumps(values), encoding="utf-8")
    print(json.dumps({"version": version(distribution), "cpu_s": min(times_s)}))


if __name__ == "__main__":
    main(sys.argv[1:])

"""schwab-py by itself: a streamer client whose handler does nothing, as the library's guide has it.

    python -m benchmarks.rivals.schwab_alone URL SECONDS TICKER,TICKER…

Logs in at a simulator, subscribes level one and minute bars of the tickers, reads for some seconds
and prints the processor time that took and the memory at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.schwab_client import StreamClient, broker_at

_FIELDS = StreamClient.LevelOneEquityFields
# The same fields that ingest asks for.
FIELDS = [
    _FIELDS.SYMBOL, _FIELDS.BID_PRICE, _FIELDS.ASK_PRICE, _FIELDS.LAST_PRICE,
    _FIELDS.TOTAL_VOLUME, _FIELDS.QUOTE_TIME_MILLIS, _FIELDS.TRADE_TIME_MILLIS,
]  # fmt: skip


def pss_bytes() -> int:
    """Return the proportional set size of this process."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line[:4] == "Pss:")


async def listen(url: str, seconds: float, tickers: Sequence[str]) -> None:
    """Read frames for so long and print what it took."""
    async with broker_at(url) as broker:
        stream = StreamClient(await broker.client())
        items = 0

        def handle(message: dict[str, list[object]]) -> None:
            nonlocal items
            items += len(message["content"])

        stream.add_level_one_equity_handler(handle)
        stream.add_chart_equity_handler(handle)
        await stream.login({"max_size": None})
        await stream.level_one_equity_subs(tickers, fields=FIELDS)
        await stream.chart_equity_subs(tickers)
        end_s, cpu_s, wall_s = time.monotonic() + seconds, time.process_time(), time.monotonic()
        items = 0
        while time.monotonic() < end_s:
            await stream.handle_message()
        spent_s, passed_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        print(json.dumps({
            "version": version("schwab-py"),
            "cpu": spent_s / passed_s,
            "items_per_s": items / passed_s,
            "pss_bytes": pss_bytes(),
        }))  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Run with the arguments described above."""
    url, seconds, tickers = arguments
    asyncio.run(listen(url, float(seconds), tickers.split(",")))


if __name__ == "__main__":
    main(sys.argv[1:])

"""A broker that is not there: Charles Schwab's OAuth, REST and streamer on one loopback port.

The real client talks to it unchanged, so demo, tests and production run the same ingest. Run it
alone with `python -m services.simulator`; `settings.py` has its settings, for example
`KITE_SIM_SPEED=60` or `KITE_SIM_CSV=tests/data/INDA-1min-2023-07.csv`.

The market (`synthetic`, `csv_bars`) is minute bars; `ticks` cuts them into trades and quotes,
`tape` plays one symbol's level one, the feeds turn that into items, `streamer` is the protocol of
one connection and `wire` its socket; `fault_filter` stands between the two. `oauth`, `history` and
`quotes` are the pure parts behind `rest`. `virtual_clock` decides what time it is.
"""

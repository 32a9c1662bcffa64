"""What runs as a container, one folder each. Read in the order in which the data flows:

    broker ─► ingest ─► indicators ─► signals ─► trader
                 └───────────┴───────────┴─────────┴──► writer ─► Postgres ─► gateway ─► dashboard

- ``simulator``   speaks the broker's protocol, so that everything behind it runs unchanged
- ``ingest``      wire frames in, market frames out (``market.<p>``)
- ``indicators``  market frames in, SMA9, VWAP and candles out (``indicators.<p>``)
- ``signals``     indicator frames in, crosses out (``signals.<p>``)
- ``trader``      a paper account that follows the signals (``trades.<account>``)
- ``writer``      every frame in, rows out: the only one that writes to the database
- ``gateway``     rows and live subjects to the dashboard; ``notifier`` the same to people

Services meet on the bus and nowhere else: none imports another.
"""

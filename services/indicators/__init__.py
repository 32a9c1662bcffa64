"""MARKET -> INDICATORS: closed candles, SMA9 and session VWAP, on ticks and on every timeframe."""

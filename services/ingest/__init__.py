"""Schwab's wire -> MARKET: one login, one socket, every change written down once."""

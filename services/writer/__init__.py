"""Frames -> rows: the only service that writes to the database."""

"""Faults against the real stack: what is injected, what must hold afterwards, what was measured."""

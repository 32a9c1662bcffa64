"""Tells people: signals as they happen, alarms as Alertmanager sends them."""

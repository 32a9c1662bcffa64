"""Rows and live events -> HTTP and WebSocket: the only service that browsers talk to."""

"""The `kite` command: a client of the bus, the database and the gateway."""

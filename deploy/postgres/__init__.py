"""The Postgres server: the configuration that fits a small machine."""

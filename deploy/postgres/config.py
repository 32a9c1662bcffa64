"""The configuration of a Postgres for a dozen connections on a small machine: pure."""

from __future__ import annotations

__all__ = ["host_based_access", "server_config"]


def host_based_access(network: str, *local: str) -> str:
    """Return the text of pg_hba.conf: passwords for who comes from `network`, then further lines.

    `network` is as Postgres writes it: an address with its mask, or `all`.
    """
    return "".join(f"{line}\n" for line in (f"host all all {network} scram-sha-256", *local))


def server_config(listen: str, port: int, major: int, *, sockets: str = "") -> str:
    """Return the text of postgresql.conf for a server of this major version.

    `listen` is an address or `*`. `sockets` is the directory of its Unix sockets; without one there
    are none: their paths may not exceed about 100 bytes, which a data home can.
    """
    settings = _settings(listen, port, major, sockets)
    lines = [f"{key} = {value}\n" for key, value in settings.items()]
    return "# Written at every start; ALTER SYSTEM overrides it.\n" + "".join(lines)


def _settings(listen: str, port: int, major: int, sockets: str) -> dict[str, str]:
    settings = {
        "listen_addresses": f"'{listen}'",
        "port": str(port),
        "unix_socket_directories": f"'{sockets}'",
        "password_encryption": "scram-sha-256",
        "max_connections": "40",
        "shared_buffers": "32MB",
        "work_mem": "4MB",
        "maintenance_work_mem": "32MB",
        "temp_buffers": "2MB",
        "max_worker_processes": "4",
        "max_logical_replication_workers": "0",
        "max_parallel_workers_per_gather": "1",
        "autovacuum_max_workers": "1",
        "max_wal_senders": "2",
        "max_wal_size": "256MB",
        "min_wal_size": "48MB",
        "checkpoint_timeout": "10min",
        # Commits are on the disk when they return, whatever happens to the machine.
        "fsync": "on",
        "synchronous_commit": "on",
        # Compiling costs more than the short queries here ever take.
        "jit": "off",
        # A query over all days locks every daily partition and its index.
        "max_locks_per_transaction": "256",
        # A client that died must not hold its locks for two hours.
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "client_connection_check_interval": "10s",
        "idle_in_transaction_session_timeout": "60s",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_line_prefix": "'%m [%p] %u@%d '",
        # A statement may hold data; the error itself says enough.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
    }
    if major >= 18:
        settings["io_method"] = "sync"  # no pool of reader processes for a store this small
    return settings

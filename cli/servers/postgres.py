"""A local Postgres: loopback TCP only, scram passwords, small, and never as root.

The data directory is made beside its final place and renamed at the very end, so that it is whole
or absent. initdb and the first statements run without fsync, which would wait for the disk a
thousand times; then everything is synced once, before the rename makes it count.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil

from cli.servers import host
from cli.servers.binaries import PostgresPrograms, postgres_programs
from cli.servers.server import (
    CLEAN_ENVIRONMENT,
    Command,
    explain_log,
    stop_process,
    wait_for,
)
from deploy.credentials import Credentials, load_credentials
from deploy.postgres.config import host_based_access, server_config
from deploy.private_files import explain_os_errors, write_private
from deploy.supabase.roles import (
    DATABASE,
    LOGIN_ROLES,
    OWNER,
    SUPERUSER,
    database_sql,
    roles_sql,
    scram_verifier,
)
from libs.common.durable import sync
from libs.common.errors import ServerError

__all__ = ["PostgresServer"]

_TO_BEGIN_BYTES = 256 << 20
_TO_GO_ON_BYTES = 64 << 20
_ANSWER_WAIT_S = 5.0
_ORPHANS_WAIT_S = 10.0
_PROGRAM_WAIT_S = 120.0

# What a server says that is starting, stopping, or busy.
_NOT_YET = (
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
)

# Remembers in the data directory which roles and passwords were last applied there.
_ROLES_MARK = "kite_roles"

_CAUSES = (
    (r"could not bind|address already in use", "its port was taken by another program"),
    (r"no space left on device", "the disk is full: free some space"),
    (r"initialized by PostgreSQL version", "its data belongs to another major version"),
    (r"permission denied", "it may not use its directory: check who owns the data home"),
    (r"pre-existing shared memory", "the processes of its last run have not all ended yet"),
    (r"could not (create|resize|map).*shared memory", "the machine is short of shared memory"),
)


class PostgresServer:
    """One Postgres below a data home.

    Port 0 takes a free one, which the object then keeps over restarts of the server.
    """

    name = "postgres"

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        programs: PostgresPrograms | None = None,
        runtime: Path | None = None,
    ) -> None:
        """Describe the server; `programs` overrides the wheel's, `runtime` is where copies go."""
        self._home = home.absolute()
        self._data = self._home / "postgres"
        self._runtime = runtime or self._home / "runtime"
        self._port = port
        self._programs = programs
        self._account = host.server_account()
        self._credentials: Credentials | None = None

    @property
    def programs(self) -> PostgresPrograms:
        """Where `psql`, `pg_dump` and the rest are; valid after `prepare`."""
        if self._programs is None:
            raise ServerError("Postgres is not prepared yet")
        return self._programs

    @property
    def port(self) -> int:
        """The port, known after `prepare`."""
        return self._port

    def dsn(self, role: str = OWNER, database: str = DATABASE) -> str:
        """Return how to connect as `role`, password included."""
        password = self._passwords[role]
        return f"postgresql://{role}:{password}@{host.LOOPBACK}:{self._port}/{database}"

    @property
    def _passwords(self) -> dict[str, str]:
        if self._credentials is None:
            raise ServerError("Postgres is not prepared yet")
        return self._credentials.postgres

    def prepare(self) -> None:
        """Make the data directory (once), passwords and configuration; see the package."""
        host.make_home(self._home, self._account)
        self.require_room()
        if self._programs is None:
            self._programs = postgres_programs(self._runtime, copy=self._account is not None)
        self._credentials = load_credentials(self._home, postgres_users=LOGIN_ROLES)
        self._refuse_if_running()
        self._port = host.claim_port(self._port, "Postgres")
        if self._data.exists():
            self._check_version()
            self._configure(self._data)
            self._ensure_roles()
        else:
            self._create()

    def require_room(self) -> None:
        """Raise ServerError when the disk has too little room to make a database, or to go on."""
        needed_bytes = _TO_GO_ON_BYTES if self._data.exists() else _TO_BEGIN_BYTES
        host.require_free_space(self._home, needed_bytes)

    def _create(self) -> None:
        """Make the data directory whole, then let it appear."""
        staged = self._data.with_name(".postgres.new")
        with explain_os_errors(self._home):
            shutil.rmtree(staged, ignore_errors=True)
        host.make_directory(staged, self._account)
        options = ("-U", SUPERUSER, "-E", "UTF8", "--no-locale", "-A", "reject", "--no-sync")
        self._run("initdb", "-D", staged, *options)
        self._configure(staged)
        self._apply_roles(staged, *database_sql(), fsync=False)
        self._run("initdb", "-D", staged, "--sync-only")
        with explain_os_errors(self._home):
            staged.rename(self._data)
            sync(self._data.parent)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(self.programs.major):
            raise ServerError(
                f"the data in {self._data} belongs to Postgres {found}, the programs are Postgres "
                f"{self.programs.major}: restore a backup into a new KITE_HOME, or install the "
                "version that fits"
            )

    def _configure(self, data: Path) -> None:
        text = server_config(host.LOOPBACK, self._port, self.programs.major)
        write_private(data / "postgresql.conf", text, self._account)
        write_private(data / "pg_hba.conf", host_based_access(f"{host.LOOPBACK}/32"), self._account)

    def _roles_fingerprint(self) -> str:
        """Name the roles, their passwords and who may connect, without telling them."""
        wanted = "\n".join(roles_sql(self._passwords) + database_sql())
        return hashlib.sha256(wanted.encode()).hexdigest()

    def _ensure_roles(self) -> None:
        """Bring the roles up to date, when passwords were renewed or the program is a newer one."""
        mark = self._data / _ROLES_MARK
        if not mark.exists() or mark.read_text(encoding="ascii") != self._roles_fingerprint():
            _, *admit = database_sql()
            self._apply_roles(self._data, *admit)

    def _apply_roles(self, data: Path, *then: str, fsync: bool = True) -> None:
        """Run statements as the superuser of the stopped server, in its single-user mode."""
        verifiers = {role: scram_verifier(password) for role, password in self._passwords.items()}
        statements = [*roles_sql(verifiers), *then]
        settings = ("-c", "exit_on_error=true", "-c", f"fsync={'on' if fsync else 'off'}")
        stdin = "\n".join(statements) + "\n"
        self._run("postgres", "--single", *settings, "-D", data, "template1", stdin=stdin)
        write_private(data / _ROLES_MARK, self._roles_fingerprint(), self._account)

    def _run(self, program: str, *arguments: str | Path, stdin: str = "") -> None:
        """Run one program of this Postgres as its account; raises ServerError with its words."""
        command = self._command(program, *map(str, arguments))
        try:
            done = subprocess.run(
                command.argv,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=_PROGRAM_WAIT_S,
                **command.spawn_options(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerError(f"cannot run {program}: {error}") from error
        if done.returncode != 0:
            last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ServerError(f"{program} failed: {self.explain(done.stderr) or last_line}")

    def _command(self, program: str, *arguments: str) -> Command:
        return Command(
            argv=(self.programs.path(program), *arguments),
            env=CLEAN_ENVIRONMENT,
            cwd=self._home,
            account=self._account,
            stop_signal=signal.SIGINT,  # "fast": roll back what is open, checkpoint, end
        )

    def command(self) -> Command:
        """Return what to spawn."""
        return self._command("postgres", "-D", str(self._data))

    async def wait_ready(
        self, *, deadline_s: float = 30.0, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when the owner can log in, which no stranger's server would allow."""
        await wait_for("Postgres", self._answers, deadline_s=deadline_s, alive=alive)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=_ANSWER_WAIT_S, ssl=False)
        except (OSError, TimeoutError, *_NOT_YET):
            return False
        except asyncpg.PostgresError as error:
            raise ServerError(f"Postgres refuses the owner's login: {error}") from error
        await connection.close()
        return True

    def _processes(self) -> Iterator[psutil.Process]:
        """Yield the live processes of this data directory: each has it as working directory."""
        for process in host.processes_named("postgres"):
            try:
                if process.cwd() == str(self._data.resolve()):
                    yield process
            except psutil.Error:
                continue

    def _postmaster(self) -> psutil.Process | None:
        """Return the live main process of this data directory, whatever a stale file may say."""
        try:
            pid = int((self._data / "postmaster.pid").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return next((process for process in self._processes() if process.pid == pid), None)

    def _refuse_if_running(self) -> None:
        """Refuse beside a live server; wait for the last processes of one that was killed."""
        postmaster = self._postmaster()
        if postmaster is not None:
            raise ServerError(f"Postgres still runs from an earlier start, as pid {postmaster.pid}")
        _, alive = psutil.wait_procs(list(self._processes()), timeout=_ORPHANS_WAIT_S)
        if alive:
            raise ServerError(f"a process of the last Postgres does not end: pid {alive[0].pid}")
        # Nobody is left, so the file is stale; its number may be anybody's by now, which would
        # make the new server refuse.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop_leftover(self, *, deadline_s: float = 10.0) -> bool:
        """Stop this server if an earlier supervisor left it running; tell whether it was."""
        postmaster = self._postmaster()
        if postmaster is None:
            return False
        stop_process(postmaster, signal.SIGINT, deadline_s=deadline_s)
        return True

    def explain(self, log_tail: str) -> str | None:
        """Name the cause of a failed start in one line, from the end of the server's log."""
        return explain_log(log_tail, _CAUSES)

"""Make or renew the virtual environment that ``./kite`` and ``make`` run in.

    make_venv.py GROUP VENV [FALLBACK-VENV]

Installs requirements/GROUP.txt, every file checked against its hash, into the first environment
whose place can be written to, and prints its path on standard output; progress and errors go to
standard error. Needs nothing but the standard library: it runs before anything is installed.

Promises: two runs at the same time do not disturb each other (the second waits, and then finds the
work done); a run that was killed leaves nothing that the next one could mistake for complete,
because the copy of the lock file that marks an environment as finished is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
# The development set contains the set of `./kite`: with the one installed, the other is there too.
INCLUDES = {"dev": ("kite",)}
_TAIL_LINES_MAX = 40


class SetupError(Exception):
    """The environment cannot be made; the message is one line that says how to mend it."""


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 with the path printed, 1 with one line of explanation."""
    group, *places = arguments
    try:
        print(make(group, [Path(place) for place in places]))
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("setup interrupted; the next run goes on with it")
        return 130
    return 0


def make(group: str, places: list[Path]) -> Path:
    """Return a complete environment for the group, after making it if needed."""
    locked = REQUIREMENTS / f"{group}.txt"
    if not locked.is_file():
        raise SetupError(f"there is no {locked.relative_to(ROOT)}; was the checkout complete?")
    venv = choose(places)
    try:
        venv.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(venv.parent):
            if not is_fresh(venv, group):
                build(venv, group, locked)
    except OSError as error:
        raise SetupError(f"cannot write the Python environment: {error}") from error
    return venv


def choose(places: list[Path]) -> Path:
    """Return the first place that can be written to."""
    for venv in places:
        existing = venv
        while not existing.exists():
            existing = existing.parent
        if os.access(existing, os.W_OK | os.X_OK):
            return venv
    raise SetupError(
        f"cannot write to {' or '.join(map(str, places))}; set KITE_HOME to a directory of yours"
    )


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the one lock of a directory; the system releases it however its holders end.

    The installers inherit it (``close_fds=False``): if this process is killed, its orphans still
    keep a second setup from writing into the same environment.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another setup of Python packages to finish")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_fresh(venv: Path, group: str) -> bool:
    """Tell whether exactly the current lock file was installed completely."""
    mark = marker(venv, group)
    locked = REQUIREMENTS / f"{group}.txt"
    python = venv / "bin" / "python"
    return python.exists() and mark.exists() and filecmp.cmp(mark, locked, shallow=False)


def marker(venv: Path, group: str) -> Path:
    """Return where the environment keeps its copy of the lock file of a group."""
    return venv / f".installed-{group}.txt"


def build(venv: Path, group: str, locked: Path) -> None:
    """Create what is missing, install the lock file, and mark the result as complete."""
    count = sum("==" in line for line in locked.read_text(encoding="utf-8").splitlines())
    say(f"installing {count} Python packages into {venv} (once, about a minute)")
    # Whatever is installed now may change versions that another group's marker vouches for.
    for stale in venv.glob(marker(venv, "*").name):
        stale.unlink()
    uv = shutil.which("uv")
    if not works(venv):
        create(venv, uv)
    if uv is None or not install_with_uv(uv, venv, locked):
        install_with_pip(venv, locked, count)
    for name in (group, *INCLUDES.get(group, ())):
        shutil.copyfile(REQUIREMENTS / f"{name}.txt", marker(venv, name))
    say("Python packages are ready")


def works(venv: Path) -> bool:
    """Tell whether the environment has an interpreter that starts and is new enough."""
    probe = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
    try:
        return (
            subprocess.run([venv / "bin" / "python", "-I", "-c", probe], check=False).returncode
            == 0
        )
    except OSError:
        return False


def create(venv: Path, uv: str | None) -> None:
    """Create an empty environment, in place of whatever is there."""
    attempts = [[sys.executable, "-I", "-m", "venv", "--clear", str(venv)]]
    if uv is not None:
        attempts.insert(
            0, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)]
        )
    output = ""
    for command in attempts:
        done = subprocess.run(command, check=False, close_fds=False, capture_output=True, text=True)
        if done.returncode == 0 and works(venv):
            return
        output = done.stdout + done.stderr
    if "ensurepip" in output:
        raise SetupError(
            f"{sys.executable} has no venv module with pip; install it"
            " (on Debian and Ubuntu: apt install python3-venv) and run this again"
        )
    raise SetupError(f"cannot create {venv}: {last_line(output.splitlines())}")


def install_with_uv(uv: str, venv: Path, locked: Path) -> bool:
    """Install with a uv that is already on the machine; False leaves the work to pip."""
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "--python"]
    done = subprocess.run(
        [*command, str(venv / "bin" / "python"), "-r", str(locked)],
        check=False,
        close_fds=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        say(f"uv could not do it ({last_line(done.stderr.splitlines())}); trying pip")
    return done.returncode == 0


def install_with_pip(venv: Path, locked: Path, count: int) -> None:
    """Install with the environment's own pip, counting packages on a terminal."""
    python = str(venv / "bin" / "python")
    pip = [python, "-I", "-m", "pip"]
    if subprocess.run([*pip, "--version"], check=False, capture_output=True).returncode != 0:
        # An environment that uv made has no pip of its own.
        subprocess.run([python, "-I", "-m", "ensurepip"], check=False, capture_output=True)
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [*pip, "install", *options, "--require-hashes", "-r", str(locked)]
    tail: deque[str] = deque(maxlen=_TAIL_LINES_MAX)
    found = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, close_fds=False
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            tail.append(line.rstrip())
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                found += 1
                progress(f"kite: {found}/{count} packages")
            elif line.startswith("Installing collected packages"):
                progress("kite: unpacking packages")
    progress("")
    if running.returncode != 0:
        raise SetupError(explain(list(tail)))


def explain(output: list[str]) -> str:
    """Return one line for a failed pip: what it said, and what the operator can do about it."""
    errors = [line for line in output if line.startswith("ERROR")]
    text = "\n".join(output)
    reason = (errors[0] if errors else last_line(output)).removeprefix("ERROR: ")
    if "No space left" in text:
        return f"the disk is full: {reason}"
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return (
            "a package does not match its hash in requirements/; the mirror may be broken, or worse"
        )
    return (
        f"cannot install the Python packages: {reason}; check the network, HTTPS_PROXY, and pip's"
        " settings if you use a mirror, then run this again"
    )


def last_line(output: list[str]) -> str:
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed(output) if line.strip()), "no output")


def progress(text: str) -> None:
    """Overwrite the current line of a terminal; say nothing into files and pipes."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line for the person who waits."""
    print(f"kite: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

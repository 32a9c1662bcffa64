"""Our rules of style as tests: what no linter knows, on every file of the repository.

A rule is a pure function from a file to complaints. Each is shown a file that breaks it as well, so
that a rule which finds nothing is known to be able to.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from deploy import settings_page

ROOT = Path(__file__).resolve().parent.parent
THIS = Path(__file__).relative_to(ROOT)

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
LINE_COLUMNS_MAX = 100
SQL_COLUMNS_MAX = 120  # a column with type, default and check reads best in one line
FOUR_SERVICES = ("ingest", "indicators", "signals", "writer")
FOUR_FILES = ("__main__.py", "service.py", "core.py", "settings.py")
CLOCK = Path("libs/common/clock.py")
WAITING = Path("tests/waiting.py")
DEVELOPMENT = {Path("libs/common/calendar/generate.py")}
OURS = {"services", "libs", "cli", "deploy", "tests", "benchmarks"}
EXAMPLES = {Path("libs/common/settings.py")}  # its docstring shows how names are made
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "stuff", "tools"}
# Written by programs or by the world outside: the rules on text do not apply.
DATA = ("tests/data/", "requirements/", "docs/faults.jsonl", "LICENSE")
BINARY = {".png", ".ico", ".woff2", ".parquet", ".gz", ".zst"}

Rule = Callable[[Path, str], Iterator[str]]


@lru_cache(maxsize=1)
def files() -> tuple[Path, ...]:
    """Every file that is committed or about to be, relative to the root."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(Path(name) for name in sorted(listed.split("\0")) if (ROOT / name).is_file())


def texts() -> Iterator[tuple[Path, str]]:
    """Every text that people write."""
    for path in files():
        if not path.as_posix().startswith(DATA) and path.suffix not in BINARY and path != THIS:
            yield path, (ROOT / path).read_text(encoding="utf-8")


# -- rules on Python ------------------------------------------------------------------------------


def docstring(path: Path, text: str) -> Iterator[str]:
    """A module opens with what it promises."""
    if text.strip() and ast.get_docstring(ast.parse(text)) is None:
        yield "has no module docstring"


def function_length(path: Path, text: str) -> Iterator[str]:
    """A function fits on a page; its docstring does not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if ast.get_docstring(node) is not None and len(node.body) > 1:
                first = node.body[1]
            lines = (node.end_lineno or 0) - first.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} at most"


def wall_clock(path: Path, text: str) -> Iterator[str]:
    """Only clock.py asks what time it is; everybody else is told."""
    if path == CLOCK:
        return
    forbidden = re.compile(
        r"(^|\.)(time\.(time|time_ns)|(datetime|date)\.(now|utcnow|today)|Timestamp\.(now|utcnow|today))$"
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and forbidden.search(ast.unparse(node)):
            yield f"{node.lineno}: {ast.unparse(node)} outside {CLOCK}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            for alias in node.names:
                if alias.name in {"time", "time_ns"}:
                    yield f"{node.lineno}: imports time.{alias.name} outside {CLOCK}"


def sleeping_test(path: Path, text: str) -> Iterator[str]:
    """A test waits for an event, never for a time; sleep(0), a turn of the loop, is fine."""
    if path.parts[0] != "tests" or path == WAITING:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "sleep":
            argument = node.args[0] if node.args else None
            if not (isinstance(argument, ast.Constant) and argument.value == 0):
                yield f"{node.lineno}: {ast.unparse(node)}; wait with `eventually` instead"


def swallowed_error(path: Path, text: str) -> Iterator[str]:
    """No error disappears without a trace."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        names = "" if node.type is None else ast.unparse(node.type)
        silent = all(
            isinstance(statement, ast.Pass | ast.Continue)
            or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            for statement in node.body
        )
        if node.type is None:
            yield f"{node.lineno}: bare except"
        elif silent and re.search(r"\b(Base)?Exception\b", names):
            yield f"{node.lineno}: except {names} that does nothing"


def unexplained_exemption(path: Path, text: str) -> Iterator[str]:
    """Who silences a tool names the rule and says why."""
    explained = re.compile(
        r"#\s*(noqa:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*|type:\s*ignore\[[a-z-]+(,\s*[a-z-]+)*\])"
        r"\s*[#:;—-]*\s+\w+"
    )
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"#\s*(noqa|type:\s*ignore)\b", line) and not explained.search(line):
            yield f"{number}: exemption without a code and a reason"


def undocumented_test(path: Path, text: str) -> Iterator[str]:
    """A test says in one sentence which behaviour it holds us to."""
    if not path.name.startswith("test_"):
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_") and ast.get_docstring(node) is None:
            yield f"{node.lineno}: {node.name} does not say what it shows"


# -- rules on every text --------------------------------------------------------------------------


def length(path: Path, text: str) -> Iterator[str]:
    """A file can be read in one go, and a line without scrolling."""
    if path.suffix not in {".py", ".sh", ".sql", ".conf"} and path.name not in {"kite", "Makefile"}:
        return
    columns_max = SQL_COLUMNS_MAX if path.suffix == ".sql" else LINE_COLUMNS_MAX
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield f"has {len(lines)} lines, {FILE_LINES_MAX} at most"
    for number, line in enumerate(lines, 1):
        if len(line) > columns_max:
            yield f"{number}: {len(line)} columns, {columns_max} at most"


def left_over(path: Path, text: str) -> Iterator[str]:
    """What is committed is finished."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.search(r"\b(TODO|FIXME|XXX|HACK)\b|^(<{7}|>{7}) ", line):
            yield f"{number}: left over: {found[0]}"


def foreign_address(path: Path, text: str) -> Iterator[str]:
    """The repository stands alone: no mirror, no machine of ours, no page others cannot see."""
    forbidden = re.compile(
        r"pypi\.org|pythonhosted\.org|registry\.(npmjs|yarnpkg)|--(extra-)?index-url|/simple/"
        r"|\.\./shared\b|(?<![\w.-])/work/|(?<![\w.-])/root/|(?<![\w.-])/home/\w"
        r"|\bissues? #?\d+\b",
        re.IGNORECASE,
    )
    for number, line in enumerate(text.splitlines(), 1):
        if found := forbidden.search(line):
            yield f"{number}: names {found[0]!r}"


def vague_name(path: Path, text: str) -> Iterator[str]:
    """A file is called after its role."""
    if VAGUE_NAMES & {path.stem, *path.parent.parts}:
        yield "is called after nothing; name its role"


PYTHON_RULES: tuple[Rule, ...] = (
    docstring,
    function_length,
    wall_clock,
    sleeping_test,
    swallowed_error,
    unexplained_exemption,
    undocumented_test,
)
TEXT_RULES: tuple[Rule, ...] = (length, left_over, foreign_address, vague_name)

CODE = "services/ingest/core.py"
TEST = "tests/unit/test_a.py"
BROKEN: list[tuple[Rule, str, str]] = [
    (docstring, CODE, "import os\n"),
    (function_length, CODE, "def f():\n" + "    print()\n" * (FUNCTION_LINES_MAX + 1)),
    (wall_clock, CODE, "import time\ntime.time()\n"),
    (wall_clock, CODE, "from time import time_ns\n"),
    (wall_clock, CODE, "import datetime as dt\nf(default=dt.datetime.now)\n"),
    (wall_clock, TEST, "from datetime import date\ndate.today()\n"),
    (sleeping_test, TEST, "time.sleep(0.1)\n"),
    (sleeping_test, TEST, "await asyncio.sleep(DELAY_S)\n"),
    (swallowed_error, CODE, "try:\n    f()\nexcept Exception:\n    pass\n"),
    (swallowed_error, CODE, "try:\n    f()\nexcept (OSError, BaseException):\n    ...\n"),
    (swallowed_error, CODE, "try:\n    f()\nexcept:\n    log()\n"),
    (unexplained_exemption, CODE, "f()  # noqa\n"),
    (unexplained_exemption, CODE, "f()  # noqa: S608\n"),
    (unexplained_exemption, CODE, "f()  # type: ignore\n"),
    (unexplained_exemption, CODE, "f()  # type: ignore[arg-type]\n"),
    (undocumented_test, TEST, "def test_a():\n    assert True\n"),
    (length, CODE, "#\n" * (FILE_LINES_MAX + 1)),
    (length, "deploy/a.sql", "-" * (SQL_COLUMNS_MAX + 1)),
    (length, "kite", "#" * (LINE_COLUMNS_MAX + 1)),
    (left_over, "docs/a.md", "# TODO: write\n"),
    (foreign_address, "Makefile", "pip install --index-url http://mirror\n"),
    (foreign_address, "docs/a.md", "see ../shared/design\n"),
    (foreign_address, CODE, "# files are in /work/main\n"),
    (vague_name, "libs/common/utils.py", ""),
    (vague_name, "libs/helpers/bus.py", ""),
]
SOUND: list[tuple[Rule, str, str]] = [
    (wall_clock, CLOCK.as_posix(), "import time\ntime.time_ns()\n"),
    (wall_clock, CODE, "import time\ntime.monotonic()\nclock.now_ms()\n"),
    (sleeping_test, TEST, "await asyncio.sleep(0)\n"),
    (swallowed_error, CODE, "try:\n    f()\nexcept Exception:\n    log()\n    raise\n"),
    (unexplained_exemption, CODE, "f()  # noqa: S608  # the name is ours\n"),
    (unexplained_exemption, CODE, "f()  # type: ignore[arg-type, misc]  # the stub is wrong\n"),
    (foreign_address, CODE, "ROOT / 'homework/'\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_rule_finds_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    """Each rule complains about an example of what it forbids."""
    assert list(rule(Path(path), text))


@pytest.mark.parametrize(("rule", "path", "text"), SOUND)
def test_a_rule_leaves_sound_code_alone(rule: Rule, path: str, text: str) -> None:
    """What looks similar but is allowed passes."""
    assert list(rule(Path(path), text)) == []


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_python_keeps_the_rule(rule: Rule) -> None:
    """No Python file of the repository breaks the rule."""
    python = ((path, text) for path, text in texts() if path.suffix == ".py")
    complaints = [f"{path}:{what}" for path, text in python for what in rule(path, text)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("rule", TEXT_RULES, ids=lambda rule: rule.__name__)
def test_every_text_keeps_the_rule(rule: Rule) -> None:
    """No text of the repository breaks the rule."""
    complaints = [f"{path}:{what}" for path, text in texts() for what in rule(path, text)]
    assert not complaints, "\n" + "\n".join(complaints)


# -- rules on the whole ---------------------------------------------------------------------------


def declared(group: str) -> set[str]:
    """The distributions that a dependency group and those it includes name, in normal form."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names: set[str] = set()
    for item in groups["dependency-groups"][group]:
        if isinstance(item, dict):
            names |= declared(item["include-group"])
        else:
            names.add(normal(re.split(r"[<>=!~;\[ ]", item)[0]))
    return names


def normal(distribution: str) -> str:
    """The form in which distribution names are compared."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def group_of(path: Path) -> str:
    """The dependency group that must hold what a file imports."""
    if path.parts[0] == "services" and len(path.parts) > 2:
        return path.parts[1]
    if path.parts[:2] == ("benchmarks", "rivals") and path.stem != "__init__":
        return "bench"
    if path.parts[:2] == ("deploy", "release"):
        return "dev"  # runs where images are built, and is in none of them
    if path == Path("libs/common/postgres.py"):
        return "init"  # base and the driver: whoever imports it connects to a database
    return {"libs": "base", "cli": "cli", "deploy": "init"}.get(path.parts[0], "dev")


def test_every_import_is_declared_by_its_group() -> None:
    """No service lives on a package that only another one's group happens to install."""
    distributions = importlib.metadata.packages_distributions()
    missing = set()
    for path in files():
        if path.suffix != ".py" or path in DEVELOPMENT:
            continue
        for package in imported_packages((ROOT / path).read_text(encoding="utf-8")):
            origins = {normal(name) for name in distributions.get(package, ())}
            if origins and not origins & declared(group_of(path)):
                missing.add(f"{path} imports {package}, which group {group_of(path)} lacks")
    assert not missing, "\n" + "\n".join(sorted(missing))


def imported_packages(text: str) -> set[str]:
    """The top-level packages of other people that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - OURS - sys.stdlib_module_names


@pytest.mark.parametrize("service", FOUR_SERVICES)
def test_the_services_of_the_flow_look_alike(service: str) -> None:
    """Each has the same four files; any other file is an adapter or a catalogue beside them."""
    folder = Path("services") / service
    present = {path.name for path in files() if path.parent == folder}
    assert present >= set(FOUR_FILES), f"{folder} lacks {sorted(set(FOUR_FILES) - present)}"


def test_the_page_of_settings_is_current() -> None:
    """docs/settings.md says what the services read; `make docs` writes it anew."""
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.render()


def test_every_setting_is_documented() -> None:
    """Each KITE_ variable that code names stands in .env.example or in the documentation."""
    documented = "\n".join(
        text for path, text in texts() if path.name == ".env.example" or path.suffix == ".md"
    )
    code = [
        (path, text)
        for path, text in texts()
        if path.suffix in {".py", ".sh"} and path.parts[0] != "tests" and path not in EXAMPLES
    ]
    missing = {
        f"{name} ({path})"
        for path, text in code
        for name in re.findall(r"\bKITE_[A-Z0-9_]*[A-Z0-9]\b", text)
        if name not in documented
    }
    assert not missing, "\n" + "\n".join(sorted(missing))


def test_every_library_has_its_reason() -> None:
    """Whatever a group of pyproject.toml asks for is named in the decision on libraries."""
    page = (ROOT / "docs/decisions/0002-libraries.md").read_text(encoding="utf-8").lower()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    wanted = {name for group in groups for name in declared(group)}
    named = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", page))
    assert wanted
    assert not sorted(wanted - named)

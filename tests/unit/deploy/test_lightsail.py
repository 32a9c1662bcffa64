"""The machine in Terraform's words: nobody but the operator reaches it. Read without Terraform."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

from deploy.release.state import migrations

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "lightsail"
MIGRATIONS = FOLDER.parent / "supabase" / "migrations"
WORLD = re.compile(r"0\.0\.0\.0/0|::/0")
# What an older release may still need when it is gone or has another shape.
TAKES_AWAY = re.compile(
    r"\bdrop\s+(table|column|function|view|schema|type|role)\b|\brename\b|\bset\s+not\s+null\b"
    r"|\balter\s+column\s+\w+\s+(set\s+data\s+)?type\b|\btruncate\b",
    re.IGNORECASE,
)


def words(value: Any) -> Any:
    """A parsed document without the quotation marks and marks of its parser."""
    if isinstance(value, dict):
        return {
            key.strip('"'): words(inner) for key, inner in value.items() if not key.startswith("__")
        }
    if isinstance(value, list):
        return [words(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value


def blocks(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All blocks of a kind in all files, by their names joined with a dot."""
    for path in sorted(FOLDER.glob("*.tf")):
        for block in words(hcl2.loads(path.read_text(encoding="utf-8"))).get(kind, ()):
            for name, body in block.items():
                if kind == "resource":
                    yield from ((f"{name}.{each}", inner) for each, inner in body.items())
                else:
                    yield name, body


def resource(kind: str) -> dict[str, Any]:
    """The one resource of a kind."""
    (found,) = [body for name, body in blocks("resource") if name.startswith(f"{kind}.")]
    return found


def test_only_ssh_is_open_and_only_for_the_operator() -> None:
    """One rule; without addresses of its own it would let the whole world in."""
    (rule,) = resource("aws_lightsail_instance_public_ports")["port_info"]
    assert (rule["protocol"], rule["from_port"], rule["to_port"]) == ("tcp", 22, 22)
    assert rule["cidrs"] == "${var.operator_cidrs}"
    assert not {"ipv6_cidrs", "cidr_list_aliases"} & set(rule)
    assert resource("aws_lightsail_instance")["ip_address_type"] == "ipv4"


def test_the_operator_must_say_from_where() -> None:
    """There is no default, and the whole world is refused."""
    (variable,) = [body for name, body in blocks("variable") if name == "operator_cidrs"]
    assert "default" not in variable
    (check,) = variable["validation"]
    assert "cidrnetmask" in check["condition"]
    assert "16" in check["condition"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.tf")), ids=lambda path: path.name)
def test_no_address_of_everybody_is_in_a_rule(path: Path) -> None:
    """But in the sentence that refuses it."""
    text = "\n".join(
        line for line in path.read_text("utf-8").splitlines() if "error_message" not in line
    )
    assert not WORLD.search(text)


def test_the_disk_is_kept() -> None:
    """Daily snapshots, and no plan that would take the machine away."""
    instance = resource("aws_lightsail_instance")
    (add_on,) = instance["add_on"]
    assert (add_on["type"], add_on["status"]) == ("AutoSnapshot", "Enabled")
    (lifecycle,) = instance["lifecycle"]
    assert lifecycle["prevent_destroy"] is True


def test_every_variable_is_explained_and_used() -> None:
    """And nothing is used that there is not."""
    text = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.tf"))
    used = set(re.findall(r"\bvar\.(\w+)", text))
    named = dict(blocks("variable"))
    assert used == set(named)
    assert all(body["description"] for body in named.values())


def test_no_secret_is_in_it() -> None:
    """The public half of a key is all that Terraform gets to know."""
    text = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.tf"))
    assert not re.search(r"password|secret_key|access_key|private_key|\btoken\b", text)


class TestMigrations:
    """While a release is replaced, the older one runs on the newer one's tables."""

    def test_what_takes_away_says_who_can_live_with_it(self) -> None:
        """Otherwise nobody could tell whether there is a way back."""
        known = migrations(MIGRATIONS)
        for path in MIGRATIONS.glob("*.sql"):
            if TAKES_AWAY.search(statements(path.read_text("utf-8"))):
                assert known[path.stem] != "-", f"{path.name} takes something away"

    def test_taking_away_is_noticed(self) -> None:
        """Each of these could break what still runs."""
        for text in (
            "alter table a drop column b;",
            "drop table a;",
            "alter table a rename to b;",
            "alter table a alter column b type text;",
        ):
            assert TAKES_AWAY.search(statements(text)), text

    def test_a_comment_takes_nothing_away(self) -> None:
        """Only what is done counts."""
        assert not TAKES_AWAY.search(statements("-- drop table a;\nselect 1;\n"))


def statements(sql: str) -> str:
    """A migration without its comments, and without the first ones, which begin from nothing."""
    return "\n".join(line.partition("--")[0] for line in sql.splitlines())


def test_the_scripts_are_sound_for_the_smallest_shell() -> None:
    """A host's sh is dash, a notebook's may be zsh or bash."""
    for name in ("deploy.sh", "host.sh"):
        first = (FOLDER / name).read_text("utf-8").splitlines()[0]
        assert first == "#!/bin/sh"
        subprocess.run(["/bin/sh", "-n", FOLDER / name], check=True)


def test_prices_have_a_date() -> None:
    """What costs money may cost something else tomorrow."""
    guide = (FOLDER.parents[1] / "docs" / "guides" / "deploy.md").read_text("utf-8")
    assert re.search(r"\b20\d\d\b", guide)
    assert json.dumps(dict(blocks("variable"))["bundle"]["default"]).strip('"') in guide

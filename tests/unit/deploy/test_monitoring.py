"""Alarms, dashboards and runbooks fit together, and name only what there is.

These tests read files and nothing else. What the rules do is shown by promtool, where it is
installed: `deploy/prometheus/tests/`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import dashboards

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
SERVICES = {
    "ingest", "indicators", "signals", "writer", "gateway", "simulator", "notifier", "backup",
}  # fmt: skip
SEVERITIES = {"critical", "warning", "info", "none"}
AREAS = {
    "feed", "account", "pipeline", "store", "page", "capacity", "budget", "monitoring", "backup",
}  # fmt: skip
# What others export: the process itself, Prometheus, Alertmanager.
FOREIGN = {
    "up", "ALERTS", "process_start_time_seconds", "process_resident_memory_bytes",
    "process_cpu_seconds_total", "prometheus_rule_evaluation_failures_total",
    "prometheus_notifications_errors_total", "alertmanager_notifications_failed_total",
}  # fmt: skip
# `{{ $labels.job }}`, label matchers and texts are no metrics.
NO_METRIC = re.compile(r"\{[^{}]*\}|\"[^\"]*\"|\[[^\]]*\]|\b(by|on|group_right)\s*\([^)]*\)")
NAME = re.compile(r"[a-zA-Z_:][\w:]*")
WORDS = {
    "and", "or", "unless", "bool", "offset", "abs", "avg_over_time", "changes",
    "clamp_min", "count", "histogram_quantile", "increase", "max", "max_over_time", "min",
    "min_over_time", "rate", "round", "sum", "sum_over_time", "time", "vector",
}  # fmt: skip


@lru_cache(maxsize=64)
def read(path: Path) -> Any:
    """Parse a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    return [rule for path in RULES for group in read(path)["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every rule that alarms."""
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for name, text in dashboards.render().items():
        content = json.loads(text)
        for item in content["panels"] + content["annotations"]["list"]:
            for target in item.get("targets", [item]):
                if "expr" in target:
                    yield f"{name}: {item.get('title')}", target["expr"]


def metrics_of(expression: str) -> set[str]:
    """The names in an expression that are neither functions nor labels nor numbers."""
    stripped = re.sub(r"(?<![\w:])\d[\w.]*", " ", NO_METRIC.sub(" ", expression))
    return set(NAME.findall(stripped)) - WORDS


def documented() -> set[str]:
    """The samples that docs/metrics.md promises."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names: set[str] = set()
    for name, kind in re.findall(r"^\| `(kite_\w+)` \| (\w+) \|", page, re.MULTILINE):
        suffixes = {"gauge": [""], "counter": ["_total"]}
        names |= {name + suffix for suffix in suffixes.get(kind, ["_bucket", "_sum", "_count"])}
    return names


def expected_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the rules' tests say of each alarm: its name, and the case."""
    for path in RULE_TESTS:
        for test in read(path)["tests"]:
            for case in test.get("alert_rule_test", []):
                yield case["alertname"], case


def test_an_expression_s_metrics_are_found() -> None:
    """Labels, functions, durations and numbers are left out, and nothing else."""
    text = 'round(sum by (job) (rate(kite_a_total{kind=~"b|c"}[5m]))) > 4e9 or kite:d:1h offset 15m'
    assert metrics_of(text) == {"kite_a_total", "kite:d:1h"}
    assert metrics_of("max(a) - on () group_right () max by (x, y) (b or c)") == {"a", "b", "c"}


def test_rules_and_dashboards_name_only_metrics_that_exist() -> None:
    """Each is documented, recorded by a rule of ours, or exported by what we did not write."""
    known = documented() | FOREIGN | {rule["record"] for rule in rules() if "record" in rule}
    unknown = {f"{where}: {name}" for where, text in queries() for name in metrics_of(text) - known}
    assert not unknown, "\n" + "\n".join(sorted(unknown))


def test_every_recorded_name_is_used() -> None:
    """What nobody reads is not recorded."""
    used = {name for _, text in queries() for name in metrics_of(text)}
    assert {rule["record"] for rule in rules() if "record" in rule} <= used


def test_every_alarm_says_how_bad_what_and_where_to_read_on() -> None:
    """Severity and area from our lists, one sentence, and its own page; nothing besides."""
    for alert in alerts():
        name = alert["alert"]
        assert set(alert["labels"]) == {"severity", "area"}, name
        assert alert["labels"]["severity"] in SEVERITIES, name
        assert alert["labels"]["area"] in AREAS, name
        assert set(alert["annotations"]) == {"summary", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        summary = alert["annotations"]["summary"]
        assert summary.endswith("."), name
        assert len(summary) <= 100, name


def test_no_alarm_is_there_twice() -> None:
    """One name may have several severities, each once."""
    keys = [(alert["alert"], alert["labels"]["severity"]) for alert in alerts()]
    assert len(keys) == len(set(keys))


def test_every_alarm_has_a_page_and_every_page_an_alarm() -> None:
    """And the index lists them all."""
    names = {alert["alert"] for alert in alerts()}
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == names
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", index, re.MULTILINE)) == names


@pytest.mark.parametrize(
    "page", sorted(RUNBOOKS.glob("[A-Z]*[a-z].md")), ids=lambda page: page.stem
)
def test_a_runbook_has_all_that_a_tired_person_needs(page: Path) -> None:
    """What it means, what it costs, how to look, how to mend it, when it is over."""
    text = page.read_text(encoding="utf-8")
    wanted = (
        f"# {page.stem}\n", "**What it means.**", "**What a trader loses.**", "## Look\n",
        "## Mend\n", "## Over when\n",
    )  # fmt: skip
    places = [text.find(part) for part in wanted]
    assert min(places) >= 0
    assert places == sorted(places)


def test_every_alarm_is_seen_to_fire_and_to_stay_quiet() -> None:
    """At each of its severities, in the tests for promtool; the dead man's switch never rests."""
    fired = set()
    quiet = set()
    for name, case in expected_cases():
        severities = {each["exp_labels"]["severity"] for each in case.get("exp_alerts") or []}
        fired |= {(name, severity) for severity in severities}
        quiet |= set() if severities else {name}
    assert fired == {(alert["alert"], alert["labels"]["severity"]) for alert in alerts()}
    assert quiet == {alert["alert"] for alert in alerts()} - {"Watchdog"}


def asks_for_the_market(expression: str) -> bool:
    """Whether an expression depends on market hours, if only by way of a recorded one."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    names = metrics_of(expression)
    return "kite_market_open" in names or any(
        asks_for_the_market(recorded[name]) for name in names & set(recorded)
    )


def test_where_the_market_matters_each_alarm_is_seen_while_it_is_closed() -> None:
    """There is a case in which the market is closed and this severity stays quiet."""
    quiet = set()
    for path in RULE_TESTS:
        for test in read(path)["tests"]:
            market = [each for each in test["input_series"] if "market_open" in each["series"]]
            if not any(str(each["values"]).startswith("0") for each in market):
                continue
            for case in test.get("alert_rule_test", []):
                fired = {each["exp_labels"]["severity"] for each in case.get("exp_alerts") or []}
                quiet |= {(case["alertname"], severity) for severity in SEVERITIES - fired}
    wanted = {
        (alert["alert"], alert["labels"]["severity"])
        for alert in alerts()
        if asks_for_the_market(alert["expr"])
    }
    assert ("NoMarketData", "critical") in wanted
    assert ("BudgetBurns", "critical") in wanted
    assert wanted <= quiet


def test_expected_alarms_are_those_of_the_rules() -> None:
    """promtool compares annotations too; a summary that was changed in one place shows here."""
    texts = {
        (alert["alert"], alert["labels"]["severity"]): alert["annotations"]["summary"]
        for alert in alerts()
    }
    for name, case in expected_cases():
        for each in case.get("exp_alerts") or []:
            template = texts[name, each["exp_labels"]["severity"]]
            parts = re.split(r"\{\{[^}]*\}\}", template)
            pattern = ".+".join(re.escape(part) for part in parts)
            assert re.fullmatch(pattern, each["exp_annotations"]["summary"]), (name, template)


def test_the_tests_evaluate_every_group_in_order() -> None:
    """A group that is missing there would be evaluated at the wrong moment."""
    groups = {group["name"] for path in RULES for group in read(path)["groups"]}
    for path in RULE_TESTS:
        assert set(read(path)["group_eval_order"]) == groups, path.name


def test_every_service_is_scraped() -> None:
    """At the port that compose gives to all of them; the name becomes the job."""
    config = read(DEPLOY / "prometheus" / "prometheus.yml")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"services", "prometheus", "alertmanager"}
    targets = jobs["services"]["static_configs"][0]["targets"]
    assert set(targets) == {f"{service}:9464" for service in SERVICES}
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    assert folders == SERVICES - {"backup"}  # which is a part of the command


def test_alertmanager_sends_every_severity_somewhere() -> None:
    """Routes name receivers that exist; what nobody named goes nowhere and breaks nothing."""
    config = read(DEPLOY / "alertmanager" / "alertmanager.yml")
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    root = config["route"]
    routed = {matcher for route in root["routes"] for matcher in route["matchers"]}
    assert routed == {
        'alertname = "Watchdog"',
        *(f'severity = "{severity}"' for severity in SEVERITIES - {"none"}),
    }
    assert {route["receiver"] for route in root["routes"]} | {root["receiver"]} == set(receivers)
    assert receivers[root["receiver"]] == {"name": "nobody"}
    for name in ("notifier", "dead-mans-switch"):
        assert receivers[name]["webhook_configs"][0]["url"] == "http://notifier:8000/alerts"


def test_alertmanager_leaves_out_only_alarms_that_exist() -> None:
    """Each name in an inhibition is that of a rule."""
    config = read(DEPLOY / "alertmanager" / "alertmanager.yml")
    matchers = [
        matcher
        for rule in config["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
        if matcher.startswith("alertname")
    ]
    named = {name for matcher in matchers for name in matcher.split('"')[1].split("|")}
    assert named
    assert named <= {alert["alert"] for alert in alerts()}


def test_the_dashboards_are_current() -> None:
    """deploy/grafana/json is what `python -m deploy.grafana.dashboards` writes."""
    stored = {path.name: path.read_text("utf-8") for path in dashboards.DIRECTORY.glob("*.json")}
    assert stored == dashboards.render()


def test_panels_have_room_and_a_meaning() -> None:
    """No two overlap, none leaves the page, each says in words what it shows."""
    for name, text in dashboards.render().items():
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(text)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{name}: {panel['title']}"
            assert place["x"] + place["w"] <= 24
            assert panel["type"] == "row" or panel["description"].endswith(".")
            taken |= cells


def test_grafana_reads_the_source_that_panels_name() -> None:
    """Its uid is the same in the provisioning and in every panel."""
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = read(folder / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = read(folder / "dashboards" / "provider.yml")["providers"]
    assert provider["type"] == "file"
    for text in dashboards.render().values():
        panels = [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]
        assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


class TestWithPromtool:
    """What only Prometheus's own tool can tell."""

    @pytest.fixture
    def promtool(self) -> str:
        """Return the tool, or skip."""
        found = shutil.which("promtool")
        if found is None:
            pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
        return found

    @pytest.mark.parametrize(
        ("verb", "paths"),
        [
            (("check", "config", "--syntax-only"), [DEPLOY / "prometheus" / "prometheus.yml"]),
            (("check", "rules"), RULES),
            (("test", "rules"), RULE_TESTS),
        ],
        ids=["config", "rules", "tests"],
    )
    def test_it_agrees(self, promtool: str, verb: tuple[str, ...], paths: list[Path]) -> None:
        """The settings parse, the rules parse, and every rule's tests pass."""
        done = subprocess.run(
            [promtool, *verb, *map(str, paths)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_alertmanager_takes_its_settings(self) -> None:
        """amtool reads them, where it is installed."""
        amtool = shutil.which("amtool")
        if amtool is None:
            pytest.skip("amtool is not installed (Debian: apt-get install prometheus-alertmanager)")
        path = DEPLOY / "alertmanager" / "alertmanager.yml"
        done = subprocess.run(
            [amtool, "check-config", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

"""The few kinds of panel that our dashboards are made of, as Grafana's JSON.

A dashboard is rows of panels, a row is 24 columns wide. A panel says what it shows in plain words,
names its unit, and colours only what somebody would act on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["Json", "Panel", "Row", "curves", "dashboard", "number", "table"]

Json = dict[str, Any]
SOURCE: Json = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
SCHEMA_VERSION = 37


class Panel(NamedTuple):
    """A panel without its place."""

    body: Json
    columns: int
    lines: int


class Row(NamedTuple):
    """A heading, and panels beside each other; what does not fit goes below."""

    title: str
    panels: Sequence[Panel]


def number(
    title: str,
    query: str,
    text: str,
    *,
    unit: str = "short",
    bad_from: float | None = None,
    bad_to: float | None = None,
    columns: int = 4,
) -> Panel:
    """Return one figure of now; red from `bad_from` up, or below `bad_to`."""
    body = _body("stat", title, text, [(query, "")], unit, _colours(bad_from, bad_to))
    body["options"] = {
        "colorMode": "background" if (bad_from, bad_to) != (None, None) else "none",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return Panel(body, columns, 4)


def curves(
    title: str,
    queries: Iterable[tuple[str, str]],
    text: str,
    *,
    unit: str = "short",
    limit: float | None = None,
    columns: int = 12,
) -> Panel:
    """Return curves over time, each a query and its legend, with a red line at `limit`."""
    body = _body("timeseries", title, text, queries, unit, _colours(limit, None))
    custom = {"fillOpacity": 0, "lineWidth": 1, "showPoints": "never", "spanNulls": False}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
    body["fieldConfig"]["defaults"] |= {"custom": custom, "min": 0}
    body["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(body, columns, 8)


def table(title: str, query: str, text: str, *, columns: int = 12) -> Panel:
    """Return a table of what a query gives now, one line for each series."""
    body = _body("table", title, text, [(query, "")], "short", _colours(None, None))
    body["targets"][0] |= {"format": "table", "instant": True}
    hidden = {"Time": True, "__name__": True, "instance": True}
    body["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return Panel(body, columns, 8)


def dashboard(uid: str, title: str, text: str, rows: Iterable[Row]) -> Json:
    """Return a whole dashboard; panels are placed from left to right, row by row."""
    panels: list[Json] = []
    top = 0
    for row in rows:
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        panels.append(heading | {"gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})
        top = _place(row.panels, top + 1, panels)
    for count, panel in enumerate(panels, 1):
        panel["id"] = count
    return {
        "uid": uid, "title": title, "description": text, "tags": ["alpha-kite-max"],
        "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": False, "refresh": "15s",
        "timezone": "America/New_York", "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": []}, "annotations": {"list": [_alarms()]}, "panels": panels,
    }  # fmt: skip


def _place(row: Sequence[Panel], top: int, panels: list[Json]) -> int:
    """Add a row's panels from line `top` on, and return the first free line below."""
    left = height = 0
    for panel in row:
        if left + panel.columns > COLUMNS:
            top, left, height = top + height, 0, 0
        place = {"x": left, "y": top, "w": panel.columns, "h": panel.lines}
        panels.append(panel.body | {"gridPos": place})
        left, height = left + panel.columns, max(height, panel.lines)
    return top + height


def _body(
    kind: str,
    title: str,
    text: str,
    queries: Iterable[tuple[str, str]],
    unit: str,
    colours: Json,
) -> Json:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": name}
        for index, (query, name) in enumerate(queries)
    ]
    defaults = {"unit": unit, "thresholds": colours, "color": {"mode": _COLOUR_MODES[kind]}}
    return {
        "type": kind, "title": title, "description": text, "datasource": SOURCE,
        "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
    }  # fmt: skip


_COLOUR_MODES = {"stat": "thresholds", "timeseries": "palette-classic", "table": "thresholds"}


def _colours(bad_from: float | None, bad_to: float | None) -> Json:
    """Return what is green and what is red; the first step has no bound in Grafana's JSON."""
    steps: list[Json] = [{"color": "green", "value": None}]
    if bad_from is not None:
        steps.append({"color": "red", "value": bad_from})
    if bad_to is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": bad_to}]
    return {"mode": "absolute", "steps": steps}


def _alarms() -> Json:
    """Mark on every panel when something was on that matters."""
    return {
        "name": "Alarms", "datasource": SOURCE, "enable": True, "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", severity="critical"}', "titleFormat": "{{alertname}}",
    }  # fmt: skip

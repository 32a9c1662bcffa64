"""Our dashboards: `python -m deploy.grafana.dashboards` writes deploy/grafana/json/.

Overview answers in a glance: is it fresh, is it complete, is it fast, is it full, is it safe.
Pipeline shows each service and partition, to find where it is stuck. Metrics are those of
docs/metrics.md and of the recording rules; tests hold the three against each other.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.panels import Json, Row, curves, dashboard, number, table

__all__ = ["DIRECTORY", "render"]

DIRECTORY = Path(__file__).resolve().parent / "json"


def render() -> dict[str, str]:
    """Return every file's name and text."""
    made = {"overview.json": overview(), "pipeline.json": pipeline()}
    return {
        name: json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        for name, content in made.items()
    }


def overview() -> Json:
    """Return the dashboard to look at first."""
    rows = [_fresh(), _complete(), _fast(), _full(), _safe()]
    text = "Is it fresh, is it complete, is it fast, is it full, is it safe?"
    return dashboard("kite-overview", "Overview", text, rows)


def pipeline() -> Json:
    """Return the dashboard to find the place with."""
    rows = [_processes(), _stages(), _broker(), _database(), _bus(), _page()]
    text = "Every service and partition, in the order of the flow."
    return dashboard("kite-pipeline", "Pipeline", text, rows)


def _quantiles(metric: str, by: str = "") -> list[tuple[str, str]]:
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[5m])))",
            f"{name}{legend}",
        )
        for q, name in ((0.5, "half"), (0.99, "99 %"))
    ]


def _fresh() -> Row:
    return Row("Is it fresh?", [
        number("Market", "kite:market_open", "1 in the regular session, by the broker's clock."),
        number(
            "Broker", "max(kite_ingest_connected)", "1 while logged in and subscribed.", bad_to=1
        ),
        number(
            "Newest price", 'kite:freshness_seconds{stream="MARKET"}',
            "How far the newest stored tick is behind the broker's clock. Grows when closed.",
            unit="s",
        ),
        number(
            "Alarms",
            'count(ALERTS{alertstate="firing", severity=~"critical|warning"}) or vector(0)',
            "How many are on.", bad_from=1,
        ),
        number(
            "Login ends in", "kite:token_left_seconds", "Log in to Schwab before.",
            unit="s", bad_to=4 * 3600,
        ),
        number(
            "Budget, 1 h", "max(kite:burn:1h)", "1 uses the month's budget up in a month.",
            bad_from=14.4,
        ),
        curves(
            "Freshness in market hours",
            [("kite:freshness_seconds and on () kite:market_open == 1", "{{stream}}")],
            "Broker time minus the newest stored tick or average.", unit="s", limit=60,
        ),
        curves(
            "Bad market minutes, last hour",
            [("sum_over_time(kite:bad_minute[1h])", "not {{slo}}")],
            "Minutes that broke a promise; a month may have 41 and 82.",
        ),
    ])  # fmt: skip


def _complete() -> Row:
    return Row("Is it complete?", [
        number(
            "Gaps open", "max(kite_ingest_gaps_open)", "Days of tickers that wait for history.",
            bad_from=1,
        ),
        number(
            "Minutes lost, 1 d",
            'round(sum(increase(kite_ingest_gaps_total{series="bars", state="unfillable", '
            'reason!~"no_trade|halted|closed"}[1d])))',
            "Gaps that history cannot fill.", bad_from=1,
        ),
        number(
            "Rows that differ", "sum(kite_writer_reconcile_mismatches) or vector(0)",
            "Between streams and rows, as they stand.", bad_from=1,
        ),
        number(
            "Compared", "time() - min(kite_writer_reconcile_sweep_timestamp_seconds)",
            "How long ago the slowest complete comparison ended.", unit="s", bad_from=7200,
        ),
        number(
            "Holes, 1 d", "round(sum(increase(kite_holes_total[1d])))",
            "Input frames found missing.", bad_from=1,
        ),
        number(
            "Dead letters, 1 d", "round(sum(increase(kite_ingest_dead_letters_total[1d])))",
            "What the broker sent and nobody can read.", bad_from=1,
        ),
        curves(
            "Rows a second", [("sum by (table) (rate(kite_writer_rows_total[1m]))", "{{table}}")],
            "What the writer commits.",
        ),
        curves(
            "Gaps reported, 10 min",
            [(
                "sum by (series, state) (increase(kite_ingest_gaps_total[10m]))",
                "{{series}} {{state}}",
            )],
            "Opened, filled, given up.",
        ),
    ])  # fmt: skip


def _fast() -> Row:
    return Row("Is it fast?", [
        curves(
            "Received to stored", _quantiles("kite_writer_commit_lag_seconds", "stream"),
            "From the wire frame's receipt until its rows are committed.", unit="s", limit=0.4,
        ),
        curves(
            "Received to published", _quantiles("kite_received_to_published_seconds", "job"),
            "From the wire frame's receipt until the answer is durable.", unit="s", limit=0.025,
        ),
        curves(
            "Received to the browser", _quantiles("kite_gateway_received_to_sent_seconds"),
            "From the wire frame's receipt until it went to a client.", unit="s",
        ),
        curves(
            "Charts", [(
                'histogram_quantile(0.95, sum by (le) '
                '(rate(kite_gateway_request_seconds_bucket{route=~"/api/v1/series.*"}[10m])))',
                "95 %",
            )], "A day of a ticker, from the request until the answer is sent.", unit="s", limit=2,
        ),
    ])  # fmt: skip


def _full() -> Row:
    return Row("Is it full?", [
        curves(
            "Streams and spool",
            [("kite:stream_fill:ratio", "{{stream}}"), ("kite:spool_fill:ratio", "spool")],
            "A full stream refuses; a full spool loses.", unit="percentunit", limit=0.7,
        ),
        curves(
            "Database", [
                ("max(kite_writer_database_bytes)", "size"),
                ("max(kite_writer_database_bytes_max > 0)", "plan"),
            ], "All of it, and what the plan allows.", unit="bytes",
        ),
        curves(
            "Disk of the streams", [("kite:disk_free:ratio", "free")],
            "Database and backups mostly lie on the same one.", unit="percentunit",
        ),
        curves(
            "Memory",
            [('process_resident_memory_bytes{job!~"prometheus|alertmanager"}', "{{job}}")],
            "Resident; shared pages count for each.", unit="bytes", limit=200e6,
        ),
        curves(
            "Processor", [(
                'rate(process_cpu_seconds_total{job!~"prometheus|alertmanager"}[1m])', "{{job}}"
            )], "Of the one core that a service can use.", unit="percentunit", limit=0.8,
        ),
    ])  # fmt: skip


def _safe() -> Row:
    return Row("Is it safe, and are people told?", [
        number(
            "Backup", "kite:backup_age_seconds", "How long ago the last one was finished.",
            unit="s", bad_from=26 * 3600,
        ),
        number(
            "Restore tried", "kite:restore_verified_age_seconds",
            "How long ago a backup was last restored and found equal.",
            unit="s", bad_from=8 * 86400,
        ),
        number(
            "Messages waiting", "max(kite_notifier_pending)", "To be sent to people.",
        ),
        number(
            "Channels failing", "sum(kite_notifier_channel_failing) or vector(0)",
            "Whose last try failed.", bad_from=1,
        ),
        curves(
            "Backup", [("max(kite_backup_bytes)", "size")], "Of the last one.", unit="bytes",
        ),
        curves(
            "Messages, 1 h", [(
                "sum by (channel, outcome) (increase(kite_notifier_sent_total[1h]))",
                "{{channel}} {{outcome}}",
            )], "By channel, and what came of them.",
        ),
    ])  # fmt: skip


def _processes() -> Row:
    return Row("Processes", [
        table("Ready", "kite_ready", "1 while /readyz answers 200.", columns=6),
        table("Partitions owned", "kite_partitions_owned or kite_writer_lanes_owned",
              "By each instance; the writer counts lanes.", columns=6),
        curves("Restarts, 15 min", [("kite:restarts:changes15m", "{{job}}")],
               "More than two are a loop.", limit=3, columns=6),
        curves("Errors, 5 min", [("kite:errors:increase5m", "{{job}}")],
               "Log lines, failed lanes and restarts.", limit=4, columns=6),
    ])  # fmt: skip


def _stages() -> Row:
    lane = "{{job}} {{stream}} {{partition}}"
    return Row("Stages by partition", [
        curves("Lag", [("kite:lag_seconds", lane)],
               "Behind what ingest received; up to 10 s is a quiet partition.", unit="s", limit=30),
        curves("Frames a second", [
            ("sum by (job, partition) (rate(kite_frames_total[1m]))", lane),
            ("sum by (job, stream, partition) (rate(kite_writer_frames_total[1m]))", lane),
        ], "Answered, or committed."),
        curves("Position", [
            ("max by (job, partition) (kite_position)", lane),
            ("max by (job, stream, partition) (kite_writer_position)", lane),
        ], "Sequence in the input; each stream counts for itself."),
        curves("Events a second", [
            ("sum by (job, partition) (rate(kite_events_out_total[1m]))", "{{job}} {{partition}}"),
        ], "What indicators and signals publish."),
        curves("Reloads, 5 min", [
            ("sum by (job, reason) (increase(kite_reloads_total[5m]))", "{{job}} {{reason}}"),
        ], "State dropped and loaded anew, and why."),
        curves("Anomalies, 5 min", [
            ("sum by (kind) (increase(kite_indicators_anomalies_total[5m]))", "{{kind}}"),
        ], "Input of indicators that should not occur."),
    ])  # fmt: skip


def _broker() -> Row:
    return Row("ingest", [
        curves("Items a second", [("sum(rate(kite_ingest_items_total[1m]))", "items"),
                                  ("sum(rate(kite_ingest_wire_frames_total[1m]))", "frames")],
               "Off the socket."),
        curves("Events a second",
               [("sum by (kind) (rate(kite_ingest_events_total[1m]))", "{{kind}}")],
               "Offered to MARKET."),
        curves("Connections ended, 10 min",
               [("sum by (cause) (increase(kite_ingest_reconnects_total[10m]))", "{{cause}}")],
               "And why."),
        curves("Waiting", [("max(kite_ingest_inbox_items)", "items for the core"),
                           ("max(kite_ingest_backfill_jobs)", "days of history")],
               "What has not been dealt with."),
    ])  # fmt: skip


def _database() -> Row:
    return Row("writer", [
        curves("Commit", _quantiles("kite_writer_flush_seconds", "stream"),
               "Duration of a transaction.", unit="s", limit=25),
        curves("Rows of a batch", [
            ("max by (stream, partition) (kite_writer_batch_rows)", "{{stream}} {{partition}}"),
        ], "Big while it catches up."),
        curves("Failures, 5 min", [
            ("sum by (kind) (increase(kite_writer_errors_total[5m]))", "{{kind}}"),
            ("sum(increase(kite_writer_fenced_total[5m]))", "fenced"),
        ], "Of lanes; each is tried again."),
        curves("Compared, minutes a second", [
            ("sum by (stream) (rate(kite_writer_reconcile_minutes_total[5m]))", "{{stream}}"),
        ], "By the reconciler."),
    ])  # fmt: skip


def _bus() -> Row:
    return Row("Bus", [
        curves("Publishes a second", [
            ("sum by (job, outcome) (rate(kite_bus_publishes_total[1m]))", "{{job}} {{outcome}}"),
        ], "Durable ones, by what became of them."),
        curves("Publish", _quantiles("kite_bus_publish_seconds", "job"),
               "Until the outcome is known: mostly the disk.", unit="s"),
    ])  # fmt: skip


def _page() -> Row:
    return Row("gateway", [
        curves("Requests a minute", [
            ("60 * sum by (status) (rate(kite_gateway_requests_total[1m]))", "{{status}}"),
        ], "By status.", limit=1000),
        curves("Live", [("sum(kite_gateway_clients)", "clients"),
                        ("sum(rate(kite_gateway_messages_total[1m]))", "messages a second")],
               "WebSocket connections, and what they get."),
        curves("Sent", [("kite:egress_bytes:rate5m", "bytes a second")],
               "To browsers and programs.", unit="Bps"),
        curves("Resynced and cut, 5 min", [
            ("sum by (reason) (increase(kite_gateway_resyncs_total[5m]))", "anew: {{reason}}"),
            ("sum by (reason) (increase(kite_gateway_dropped_clients_total[5m]))",
             "cut: {{reason}}"),
        ], "Clients that could not follow."),
    ])  # fmt: skip


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file, content in render().items():
        (DIRECTORY / file).write_text(content, encoding="utf-8")
        print(f"wrote {DIRECTORY.name}/{file}")

"""Metrics for Prometheus: their names, and the source of each figure.

`METRICS` is the only list of names; docs/reference/operations.md explains them and a test compares
the two. Figures of this process come from its hub, those of the installation from the database, the
same in every process. prometheus-client is needed only to write the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from realtime.ops.handler_status import HandlerStatus
from realtime.ops.status import Status
from realtime.ops.webhook_status import WebhookStatus
from realtime.util.counters import Histogram

if TYPE_CHECKING:
    from realtime.process.hub import Hub

try:
    import prometheus_client
    from prometheus_client import core
except ImportError:  # the extra [metrics] is not installed
    prometheus_client = None  # type: ignore[assignment]

INSTALL = "Metrics need prometheus-client: pip install 'django-rowcast[metrics]'"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name, as it appears in the text. `source` is the name of a counter of the process, or a
    key in the result of `_of_process` or `_of_installation`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    source: str
    help: str
    labels: tuple[str, ...] = ()


def _counted(name: str, source: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "counter", source, help_, labels)


def _gauge(name: str, source: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "gauge", source, help_, labels)


PROCESS = (
    _gauge("realtime_connections", "connections", "Open sockets."),
    _gauge("realtime_channels", "channels", "Joined channels."),
    _gauge("realtime_subscriptions", "subscriptions", "Channels that listen to changes."),
    _gauge("realtime_predicates", "predicates", "Distinct predicates subscribed to."),
    _gauge("realtime_topics", "topics", "Topics with listeners."),
    _gauge("realtime_present", "present", "Channels of this process that are present."),
    _gauge("realtime_replays_running", "replaying", "Channels in a replay."),
    _gauge("realtime_position_seq", "position", "The last event that was delivered."),
    _gauge("realtime_layer_up", "layer_up", "1 while the channel layer works."),
    _gauge("realtime_draining", "draining", "1 while the process stops."),
    _gauge("realtime_quota_keys", "quota_keys", "Addresses and users with quotas in use."),
    _gauge("realtime_outbox_max_bytes", "outbox", "The fullest outbox of the last minute."),
    _gauge("realtime_loop_delay_max_seconds", "delay", "Most delay of a timer, last minute."),
    _counted("realtime_bus_messages_total", "heard", "Messages received from the bus."),
    _counted("realtime_events_total", "events", "Events matched with the subscriptions."),
    _counted("realtime_events_matched_total", "matched", "Events with at least one recipient."),
    _counted("realtime_predicates_evaluated_total", "evaluated", "Predicates judged on events."),
    _counted("realtime_deliveries_total", "delivered", "Change frames handed to sockets."),
    _counted("realtime_frames_sent_total", "frames_out", "Frames handed to sockets."),
    _counted("realtime_sent_bytes_total", "bytes_out", "The size of those frames."),
    _counted("realtime_frames_encoded_total", "encoded", "Change frames made, one for all."),
    _counted("realtime_frames_received_total", "frames_in", "Messages of clients."),
    _counted("realtime_received_bytes_total", "bytes_in", "The size of those messages."),
    _counted("realtime_heals_total", "heals", "Times entries were missing and were read."),
    _counted("realtime_healed_events_total", "healed_events", "Entries that those reads returned."),
    _counted("realtime_head_reads_total", "watch_reads", "Comparisons with the head of the log."),
    _counted("realtime_inbox_full_total", "inbox_full", "Messages that found the inbox full."),
    _counted("realtime_layer_failures_total", "layer_failures", "Failed calls of the layer."),
    _counted("realtime_layer_rejoins_total", "rejoins", "Times the group was joined again."),
    _counted("realtime_resyncs_total", "resyncs", "Times all channels were resynced."),
    _counted("realtime_replays_total", "replays", "Replays begun."),
    _counted("realtime_snapshots_total", "snapshots", "Snapshots sent."),
    _counted("realtime_snapshot_rows_total", "snapshot_rows", "Rows of snapshots sent."),
    _counted("realtime_broadcasts_sent_total", "broadcasts_sent", "Broadcasts put on the bus."),
    _counted(
        "realtime_broadcasts_heard_total", "broadcasts_received", "Broadcasts handed to listeners."
    ),
    _counted("realtime_broadcasts_refused_total", "casts_refused", "Broadcasts not queued."),
    _counted("realtime_presence_changes_total", "presence", "Changes of who is present."),
    _counted("realtime_accepted_total", "accepted", "Sockets accepted."),
    _counted("realtime_joins_total", "joins", "Joins answered with ok."),
    _counted("realtime_limits_hit_total", "limits", "Refusals by a limit.", "limit", "scope"),
    _counted("realtime_auth_failures_total", "auth_failures", "Credentials refused.", "at"),
    _counted("realtime_closes_total", "closes", "Sockets closed by the server.", "code"),
    _counted("realtime_notes_total", "notes", "Log records about clients.", "action"),
    Metric("realtime_batch_entries", "histogram", "batches", "Entries of a batch."),
    Metric("realtime_loop_delay_seconds", "histogram", "loop_delays", "Lateness of a timer."),
)
INSTALLATION = (
    _gauge("realtime_database_up", "database_up", "1 while the database can be read."),
    _gauge("realtime_head_seq", "head", "The last number given."),
    _gauge("realtime_backlog_entries", "backlog", "Committed changes without a number."),
    _gauge("realtime_lag_seconds", "lag", "Age of the oldest change without a number."),
    _gauge("realtime_leader", "leader", "1 while a process numbers the log."),
    _gauge("realtime_log_entries", "entries", "Numbered entries that are kept."),
    _gauge("realtime_log_bytes", "bytes", "Size of the log (PostgreSQL)."),
    _gauge("realtime_log_partitions", "partitions", "Partitions of the log (PostgreSQL)."),
    _gauge("realtime_log_strays", "strays", "Entries in the default partition (PostgreSQL)."),
    _gauge("realtime_processes", "processes", "Processes with a good lease.", "kind"),
    _gauge("realtime_process_connections", "by_connections", "Open sockets.", "process"),
    _gauge("realtime_process_channels", "by_channels", "Joined channels.", "process"),
    _gauge("realtime_process_behind_events", "by_behind", "Events yet to be delivered.", "process"),
    _gauge("realtime_handlers", "handlers", "Handlers of changes.", "state"),
    _gauge("realtime_handler_up", "handler_up", "1 unless stopped or stuck.", "handler"),
    _gauge("realtime_handler_lag_events", "handler_lag", "Numbers yet to be passed.", "handler"),
    _gauge("realtime_handler_lag_seconds", "handler_age", "Age of the first of them.", "handler"),
    _gauge("realtime_handler_attempts", "attempts", "Failed attempts of this change.", "handler"),
    _counted("realtime_handler_changes_total", "handled", "Changes handled.", "handler"),
    _counted("realtime_handler_failures_total", "failures", "Attempts that failed.", "handler"),
    _gauge("realtime_dead_letters", "letters", "Changes that were given up.", "handler"),
    _gauge("realtime_dead_letter_age_seconds", "letter_age", "Age of the oldest.", "handler"),
    _gauge("realtime_webhook_up", "webhook_up", "1 unless disabled or failing.", "webhook"),
    _gauge("realtime_webhook_failures", "webhook_failures", "Failed in a row.", "webhook"),
    _gauge("realtime_webhook_pending", "webhook_pending", "Deliveries to be sent.", "webhook"),
    _gauge("realtime_webhook_lag_seconds", "webhook_age", "Age of the oldest.", "webhook"),
)
METRICS = (*PROCESS, *INSTALLATION)

# By label values, in the order of the metric's labels; () without labels.
Figures = Mapping[tuple[str, ...], float] | Histogram


def render(hub: Hub | None, status: Status | None) -> tuple[str, str]:
    """The text and its content type. Raises LookupError without prometheus-client.

    `hub` is None where the process has no sockets, `status` where the database cannot be read.
    """
    if prometheus_client is None:
        raise LookupError(INSTALL)
    figures = {**_of_installation(status), **({} if hub is None else _of_process(hub))}
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Reader(figures))  # type: ignore[arg-type]
    text = prometheus_client.generate_latest(registry).decode()
    return text, prometheus_client.CONTENT_TYPE_LATEST


class _Reader:
    """A collector, as prometheus-client calls it."""

    def __init__(self, figures: Mapping[str, Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        for metric in METRICS:
            found = self._figures.get(metric.name)
            if found is not None:
                yield _family(metric, found)


def _family(metric: Metric, found: Figures) -> Any:
    if isinstance(found, Histogram):
        family = core.HistogramMetricFamily(metric.name, metric.help)
        family.add_metric([], _buckets(found), found.total)
        return family
    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
    family = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in found.items():
        family.add_metric(labels, value)
    return family


def _buckets(found: Histogram) -> list[tuple[str, float]]:
    buckets, sum_ = [], 0
    for bound, count in zip((*found.bounds, None), found.counts, strict=True):
        sum_ += count
        buckets.append(("+Inf" if bound is None else str(float(bound)), float(sum_)))
    return buckets


def _of_process(hub: Hub) -> dict[str, Figures]:
    dispatcher, counters = hub.dispatcher, hub.counters
    found: dict[str, float] = {
        "connections": hub.connections,
        "channels": dispatcher.topics.listeners,
        "subscriptions": dispatcher.subscriptions.channels.subscribed,
        "predicates": dispatcher.subscriptions.channels.index.entries,
        "topics": len(dispatcher.topics),
        "present": len(hub.presence),
        "replaying": dispatcher.subscriptions.channels.running_replays,
        "position": hub.position.seq,
        "layer_up": hub.bus.healthy,
        "draining": hub.draining,
        "quota_keys": len(hub.quotas),
        "outbox": hub.loop_monitor.highest_water,
        "delay": hub.loop_monitor.longest_delay,
        "evaluated": dispatcher.subscriptions.channels.index.evaluated,
    }
    figures: dict[str, Figures] = {}
    for metric in PROCESS:
        value: Any = found.get(metric.source)
        if value is None:
            value = getattr(counters, metric.source)
        if isinstance(value, Histogram):
            figures[metric.name] = value
        elif metric.labels:
            # Keys hold two labels: "joins_per_second/address".
            figures[metric.name] = {tuple(key.split("/")): n for key, n in value.items()}
        else:
            figures[metric.name] = {(): value}
    return figures


def _of_installation(status: Status | None) -> dict[str, Figures]:
    found: dict[str, Figures] = {"database_up": {(): float(status is not None)}}
    if status is not None:
        numbering, stored, members = status.numbering, status.stored, status.processes
        servers = {f"{m.kind} {m.host}:{m.pid}": m for m in members if m.kind == "server"}
        found |= {
            "head": {(): numbering.head},
            "backlog": {(): numbering.backlog},
            "lag": {(): numbering.lag_ms / 1_000},
            "leader": {(): float(numbering.leader is not None)},
            "entries": {(): stored.entries},
            "bytes": {} if stored.bytes is None else {(): stored.bytes},
            "partitions": {(): stored.partitions or 0},
            "strays": {(): stored.strays},
            "processes": _counts(member.kind for member in members),
            "by_connections": {(name,): m.connections for name, m in servers.items()},
            "by_channels": {(name,): m.channels for name, m in servers.items()},
            "by_behind": {(name,): m.behind for name, m in servers.items()},
            **_of_handlers(status.handlers),
            **_of_webhooks(status.webhooks),
        }
    return {m.name: found[m.source] for m in INSTALLATION if m.source in found}


def _of_handlers(handlers: list[HandlerStatus]) -> dict[str, Figures]:
    return {
        "handlers": _counts(one.state for one in handlers),
        "handler_up": {
            (one.name,): float(one.state != "stopped" and not one.stuck) for one in handlers
        },
        "handler_lag": {(one.name,): one.lag for one in handlers},
        "handler_age": {(one.name,): one.lag_ms / 1_000 for one in handlers},
        "attempts": {(one.name,): one.attempts for one in handlers},
        "handled": {(one.name,): one.handled for one in handlers},
        "failures": {(one.name,): one.failures for one in handlers},
        "letters": {(one.name,): one.dead_letters for one in handlers},
        "letter_age": {
            (one.name,): one.oldest_dead_letter_ms / 1_000
            for one in handlers
            if one.oldest_dead_letter_ms is not None
        },
    }


def _of_webhooks(webhooks: list[WebhookStatus]) -> dict[str, Figures]:
    down = ("disabled", "failing")
    return {
        "webhook_up": {(one.name,): float(one.state not in down) for one in webhooks},
        "webhook_failures": {(one.name,): one.failures for one in webhooks},
        "webhook_pending": {(one.name,): one.pending for one in webhooks},
        "webhook_age": {(one.name,): one.lag_ms / 1_000 for one in webhooks},
    }


def _counts(kinds: Iterable[str]) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {}
    for kind in kinds:
        counts[kind,] = counts.get((kind,), 0) + 1
    return counts

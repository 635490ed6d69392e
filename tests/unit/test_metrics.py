"""Metric names and labels freeze with the first release: the literals here must never change."""

from consumer.adapters.metrics import Metrics

FROZEN = {
    "image_uploads_received": (),
    "image_uploads_settled": ("outcome", "reason"),
    "image_uploads_in_flight": (),
    "image_uploads_oldest_in_flight_seconds": (),
    "image_uploads_stage_duration_seconds": ("stage",),
    "image_uploads_age_seconds": (),
    "image_uploads_stored_bytes": (),
    "image_uploads_last_stored_timestamp_seconds": (),
    "image_uploads_queue_messages": ("queue",),
    "image_uploads_dependency_up": ("dependency",),
    "image_uploads_intake_paused": ("dependency",),
    "image_uploads_consumer_attached": (),
    "image_uploads_broker_reconnects": (),
    "image_uploads_event_loop_lag_seconds": (),
    "image_uploads_build_info": ("version",),
    "image_uploads_cleanup_runs": ("outcome",),
    "image_uploads_cleanup_removed": ("task",),
    "image_uploads_cleanup_removed_bytes": ("task",),
    "image_uploads_cleanup_last_success_timestamp_seconds": (),
}


def test_the_metrics_are_what_they_were_on_the_first_day() -> None:
    collectors = Metrics().registry._collector_to_names
    assert {collector._name: tuple(collector._labelnames) for collector in collectors} == FROZEN  # type: ignore[attr-defined]  # each has both


def test_what_is_set_is_what_is_scraped() -> None:
    metrics = Metrics()
    metrics.queues({"image-uploads": 3})
    metrics.queues({"image-uploads.dead": 2})
    metrics.dependency("storage", up=True)
    metrics.attached(up=True)
    metrics.reconnected()
    metrics.loop_lag(0.25)
    metrics.cleaned("expired", 2, 300)
    metrics.cleanup_ended("failed")
    lines = metrics.exposition().decode().splitlines()
    assert {
        'image_uploads_queue_messages{queue="image-uploads.dead"} 2.0',
        'image_uploads_dependency_up{dependency="storage"} 1.0',
        "image_uploads_consumer_attached 1.0",
        "image_uploads_broker_reconnects_total 1.0",
        "image_uploads_event_loop_lag_seconds 0.25",
        'image_uploads_cleanup_removed_total{task="expired"} 2.0',
        'image_uploads_cleanup_removed_bytes_total{task="expired"} 300.0',
        'image_uploads_cleanup_runs_total{outcome="failed"} 1.0',
        "image_uploads_cleanup_last_success_timestamp_seconds 0.0",  # for it has not succeeded
        'image_uploads_stage_duration_seconds_count{stage="announce"} 0.0',
        'image_uploads_settled_total{outcome="failed",reason="not_an_image"} 0.0',
    } <= set(lines)
    assert not any('queue="image-uploads"' in line for line in lines)  # what was not counted is not told

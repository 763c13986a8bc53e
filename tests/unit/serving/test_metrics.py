from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tracklayer.serving.metrics import CALLERS, SECONDS, SIZES, Histogram, Metrics

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(metrics: Metrics, in_flight: int = 0) -> dict[Sample, float]:
    """What Prometheus's own parser reads."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.page(in_flight).decode())
        for sample in family.samples
    }


def labelled(**labels: str) -> tuple[tuple[str, str], ...]:
    base = {"model": "m", "version": "3", "protocol": "p", "route": "/r"}
    return tuple(sorted((base | labels).items()))


def test_requests_are_counted_by_status_and_caller() -> None:
    metrics = Metrics()
    series = metrics.series("m", "3", "p", "/r")
    for status, caller in ((200, b"lab"), (200, b"lab"), (200, None), (503, b"lab")):
        series.observe(status, caller, 0.002)
    found = samples(metrics)
    name = "tracklayer_requests_total"
    assert found[name, labelled(code="200", caller="lab")] == 2
    assert found[name, labelled(code="200", caller="")] == 1
    assert found[name, labelled(code="503", caller="lab")] == 1


def test_the_latency_histogram_is_cumulative() -> None:
    metrics = Metrics()
    series = metrics.series("m", "3", "p", "/r")
    for seconds in (0.0001, 0.002, 0.002, 1000.0):
        series.observe(200, None, seconds)
    found = samples(metrics)
    buckets = [
        found["tracklayer_request_seconds_bucket", labelled(le=str(bound))] for bound in SECONDS
    ]
    assert buckets[:3] == [1, 1, 3]
    assert buckets == sorted(buckets)
    assert found["tracklayer_request_seconds_bucket", labelled(le="+Inf")] == 4
    assert found["tracklayer_request_seconds_count", labelled()] == 4
    assert found["tracklayer_request_seconds_sum", labelled()] == 1000.0041


def test_callers_are_bounded_and_strange_names_are_not_taken() -> None:
    metrics = Metrics()
    series = metrics.series("m", "3", "p", "/r")
    series.observe(200, b'x"} 1\n', 0.1)
    for number in range(CALLERS + 50):
        series.observe(200, f"caller-{number}".encode(), 0.1)
    series.observe(200, b"caller-0", 0.1)
    found = samples(metrics)
    name = "tracklayer_requests_total"
    callers = [labels for sample, labels in found if sample == name]
    assert len(callers) == CALLERS + 1
    assert found[name, labelled(code="200", caller="other")] == 51
    assert found[name, labelled(code="200", caller="caller-0")] == 2


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.series('m"\\', "3", "p", "/r\n").observe(200, None, 0.1)
    found = samples(metrics)
    assert ("tracklayer_request_seconds_count", labelled(model='m"\\', route="/r\n")) in found


def test_batches_in_flight_and_the_process() -> None:
    metrics = Metrics()
    sizes = Histogram(SIZES)
    metrics.batches("m", "3", sizes)
    sizes.observe(5)
    found = samples(metrics, in_flight=7)
    labels = (("model", "m"), ("version", "3"))
    assert found["tracklayer_batch_requests_sum", labels] == 5
    assert found["tracklayer_requests_in_flight", ()] == 7
    assert found["process_resident_memory_bytes", ()] > 1 << 20
    assert found["process_cpu_seconds_total", ()] > 0
    assert found["process_open_fds", ()] > 2

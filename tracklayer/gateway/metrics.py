"""The counters as Prometheus reads them (text exposition format, version 0.0.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tracklayer.gateway.stats import BOUNDS, VersionStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_EACH = 4
"""Of so many buckets of ours, Prometheus gets one: it keeps a series for each."""

_CALLERS = 500
"""Callers that have a series of their own; the rest share one."""


def exposition(
    stats: Mapping[str, Mapping[int, VersionStats]],
    projects: Collection[str],
    callers: Mapping[tuple[str, str], int],
) -> bytes:
    """One page.

    :param stats: project -> version -> counters.
    :param projects: that are shown.
    :param callers: caller and project -> requests.
    """
    shown = {project: stats[project] for project in sorted(projects) if project in stats}
    lines = [*_requests(shown), *_latency(shown), *_by_caller(callers, projects)]
    return ("\n".join(lines) + "\n").encode()


def _requests(stats: Mapping[str, Mapping[int, VersionStats]]) -> Iterator[str]:
    name = "tracklayer_gateway_requests_total"
    yield f"# HELP {name} Requests by class of the answer; broken: no whole answer."
    yield f"# TYPE {name} counter"
    for project, version, counted in _each(stats):
        for code, count in counted.codes.items():
            yield f'{name}{{project="{project}",version="{version}",code="{code}"}} {count}'


def _latency(stats: Mapping[str, Mapping[int, VersionStats]]) -> Iterator[str]:
    name = "tracklayer_gateway_request_seconds"
    yield f"# HELP {name} From the whole request to the whole answer of the server."
    yield f"# TYPE {name} histogram"
    for project, version, counted in _each(stats):
        labels = f'project="{project}",version="{version}"'
        below = 0
        for index, count in enumerate(counted.latency):
            below += count
            if index < len(BOUNDS) and index % _EACH == 0:
                yield f'{name}_bucket{{{labels},le="{BOUNDS[index]:.6g}"}} {below}'
        yield f'{name}_bucket{{{labels},le="+Inf"}} {below}'
        yield f"{name}_sum{{{labels}}} {counted.seconds:.9g}"
        yield f"{name}_count{{{labels}}} {below}"


def _by_caller(callers: Mapping[tuple[str, str], int], projects: Collection[str]) -> Iterator[str]:
    name = "tracklayer_gateway_caller_requests_total"
    yield f"# HELP {name} Requests by caller."
    yield f"# TYPE {name} counter"
    ordered = sorted(callers.items(), key=lambda item: (-item[1], item[0]))
    rest: dict[str, int] = {}
    for index, ((caller, project), count) in enumerate(ordered):
        if project not in projects:
            continue
        if index < _CALLERS:
            yield f'{name}{{caller="{caller}",project="{project}"}} {count}'
        else:
            rest[project] = rest.get(project, 0) + count
    for project, count in rest.items():
        yield f'{name}{{caller="",project="{project}"}} {count}'


def _each(
    stats: Mapping[str, Mapping[int, VersionStats]],
) -> Iterator[tuple[str, int, VersionStats]]:
    for project, versions in stats.items():
        for version, counted in sorted(versions.items()):
            yield project, version, counted

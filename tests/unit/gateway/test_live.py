from __future__ import annotations

from pathlib import Path

from tracklayer.gateway import Route
from tracklayer.gateway.backends import Backend
from tracklayer.gateway.live import LiveRoute


def route(weights: dict[int, int], **more: object) -> Route:
    versions = {version: [f"/run/{version}"] for version in weights}
    return Route.model_validate({"versions": versions, "weights": weights, **more}, strict=False)


def test_the_order_is_up_then_least_loaded_then_in_turn() -> None:
    live = LiveRoute("digits", Route.of(1, [Path(f"/run/{x}") for x in "abc"]), {}, {}, None)
    version = live.versions[1]
    a, b, c = version.backends
    firsts = [version.candidates(0.0)[0] for _ in range(6)]
    assert sorted(firsts.count(backend) for backend in version.backends) == [2, 2, 2]
    a.in_flight, b.in_flight, c.in_flight = 2, 0, 1
    assert version.candidates(0.0) == [b, c, a]
    b.mark_down(10.0)
    assert version.candidates(10.5) == [c, a, b]
    assert version.candidates(11.5) == [b, c, a]


def test_servers_and_counters_that_stay_are_the_same() -> None:
    stats: dict[int, object] = {}
    first = LiveRoute("digits", route({1: 1}), {}, stats, None)
    first.versions[1].stats.add(200, 0.1)
    second = LiveRoute("digits", route({1: 1, 2: 1}), first.backends, stats, first)
    assert second.backends[Path("/run/1")] is first.backends[Path("/run/1")]
    assert isinstance(second.backends[Path("/run/2")], Backend)
    assert second.versions[1].stats.requests == 1
    assert second.versions[2].stats.requests == 0


def test_the_main_version_is_the_champion_else_that_with_most() -> None:
    def main(found: Route) -> tuple[int, list[int]]:
        live = LiveRoute("digits", found, {}, {}, None)
        return live.main.number, [version.number for version in live.sharing]

    assert main(route({1: 10, 2: 90})) == (2, [2, 1])
    assert main(route({3: 1, 2: 1})) == (2, [2, 3])
    assert main(route({3: 1, 2: 1}, aliases={"champion": 3})) == (3, [3, 2])
    assert main(route({3: 90, 2: 10}, aliases={"champion": 2})) == (2, [3, 2])
    # Also one without a share any more: its servers are up while the new one is watched.
    assert main(route({3: 1, 2: 0}, aliases={"champion": 2})) == (2, [3])

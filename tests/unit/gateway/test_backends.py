from __future__ import annotations

import asyncio
from pathlib import Path

from tracklayer.gateway import Route
from tracklayer.gateway.backends import LiveRoute, connect


def test_the_order_is_up_then_least_loaded_then_in_turn() -> None:
    async def run() -> None:
        backends = tuple(connect(Path(f"/nowhere/{name}"), 1.0) for name in "abc")
        a, b, c = backends
        live = LiveRoute(Route(version=1, backends=[x.path for x in backends]), backends)
        firsts = [live.candidates(0.0)[0] for _ in range(6)]
        assert sorted(firsts.count(backend) for backend in backends) == [2, 2, 2]
        a.in_flight, b.in_flight, c.in_flight = 2, 0, 1
        assert live.candidates(0.0) == [b, c, a]
        b.mark_down(10.0)
        assert live.candidates(10.5) == [c, a, b]
        assert live.candidates(11.5) == [b, c, a]
        for backend in backends:
            await backend.session.close()

    asyncio.run(run())

"""A small hub on loopback that speaks Hugging Face's and Kaggle's protocols.

::

    python tests/hub/server.py --root FOLDER [--port 0] [--stock] [--latency 0.02] ...

It prints one line of JSON: ``{"port": .., "url": .., "cdn": ..}``. ``HF_ENDPOINT`` takes the url.
Kaggle's own client takes ``KAGGLE_API_ENVIRONMENT=LOCALHOST`` with the url as ``HTTP_PROXY``.
Large files and archives are redirected to signed addresses of a second port, the ``cdn``.

``GET /_stats`` counts, ``GET /_log`` shows every request with its headers, ``POST /_knobs``
changes how the hub behaves (see ``traffic.Knobs``), ``POST /_reset`` forgets and behaves, and
``POST /_push {"repository": "models/org/name", "files": {path: base64}, "ref": "main"}`` commits.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
from dataclasses import fields
from pathlib import Path

from aiohttp import web
from hugging_face import HuggingFace
from kaggle_api import Kaggle
from repositories import push, stock
from traffic import Knobs, Traffic


def control(app: web.Application, traffic: Traffic) -> None:
    """The addresses by which a test watches and steers the hub."""

    async def stats(_request: web.Request) -> web.Response:
        return web.json_response(traffic.stats())

    async def log(_request: web.Request) -> web.Response:
        return web.json_response(traffic.log)

    async def knobs(request: web.Request) -> web.Response:
        traffic.knobs.change(await request.json())
        return web.json_response(traffic.stats())

    async def reset(_request: web.Request) -> web.Response:
        traffic.log.clear()
        traffic.statuses.clear()
        traffic.number = traffic.sent = 0
        traffic.knobs = Knobs()
        return web.json_response({})

    async def commit(request: web.Request) -> web.Response:
        asked = await request.json()
        content = {name: base64.b64decode(data) for name, data in asked["files"].items()}
        repository = traffic.root / "huggingface" / asked["repository"]
        return web.json_response({"commit": push(repository, content, asked.get("ref", "main"))})

    app.router.add_post("/_push", commit)
    app.router.add_get("/_stats", stats)
    app.router.add_get("/_log", log)
    app.router.add_post("/_knobs", knobs)
    app.router.add_post("/_reset", reset)


async def start(app: web.Application, port: int) -> tuple[web.AppRunner, int]:
    """Serve an application on loopback; its port."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    bound: int = runner.addresses[0][1]
    return runner, bound


async def main() -> None:
    parser = argparse.ArgumentParser(description="A small hub on loopback")
    parser.add_argument("--root", type=Path, required=True, help="folder of the repositories")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stock", action="store_true", help="put the usual repositories there")
    for knob in fields(Knobs):
        parser.add_argument(f"--{knob.name.replace('_', '-')}", default=knob.default)
    given = vars(parser.parse_args())
    root: Path = given["root"].resolve()
    if given["stock"]:
        stock(root)

    traffic = Traffic(root)
    hugging_face = HuggingFace(traffic)

    async def either(request: web.Request) -> web.StreamResponse:
        # Kaggle's client has the hub as its proxy, and follows redirects through it too.
        if traffic.cdn.endswith(f"//{request.headers['Host']}"):
            return await traffic.deliver(request)
        return await hugging_face.answer(request)

    traffic.knobs.change({knob.name: given[knob.name] for knob in fields(Knobs)})
    hub = web.Application(middlewares=[traffic.meet], client_max_size=1 << 30)
    control(hub, traffic)
    hub.router.add_post("/api/v1/{service}/{method}", Kaggle(traffic).answer)
    hub.router.add_get("/{path:.*}", either)
    cdn = web.Application(middlewares=[traffic.meet])
    cdn.router.add_get("/{path:.*}", traffic.deliver)

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    far, far_port = await start(cdn, 0)
    near, port = await start(hub, given["port"])
    traffic.cdn = f"http://127.0.0.1:{far_port}"
    where = {"port": port, "url": f"http://127.0.0.1:{port}", "cdn": traffic.cdn}
    print(json.dumps(where), flush=True)
    await stopped.wait()
    for runner in (near, far):
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())

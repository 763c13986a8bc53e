"""The application: which path answers what, limits and back-pressure; knows no protocol by name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import orjson

from tracklayer.errors import ModelError
from tracklayer.serving import deepaas, invocations, open_inference, openapi
from tracklayer.serving.batching import Batched
from tracklayer.serving.http import CALLER, Headers, Infer, Reply, Route, Service, error_reply
from tracklayer.serving.metrics import CONTENT_TYPE, Metrics, Series
from tracklayer.serving.model import Call, RequestError
from tracklayer.serving.runner import Done, Job, Outcome, Runner, Watch

if TYPE_CHECKING:
    from tracklayer.serving.guard import Guard  # with pydantic, which takes its time

log = logging.getLogger(__name__)

PROTOCOLS: tuple[Callable[[Service, Sequence[Service]], dict[str, Route]], ...] = (
    open_inference.routes,
    invocations.routes,
    deepaas.routes,
    openapi.routes,
)
"""Every protocol is a function from a service, and all of its server, to its routes."""

_LATER = {"retry-after": "1"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes.

    :param body: bytes of a request.
    :param seconds: for reading a request and answering it.
    :param head: seconds for the line and the headers of a request.
    :param concurrency: inferences being read, waiting or running; more get 503.
    :param connections: open at a time; more get 503.
    :param workers: inferences of a model at the same time.
    :param inline: where recent inferences took at most so many seconds, the next runs in the event
        loop, because the way to a thread and back costs more. 0: all run in threads.
    :param batch: requests that wait to be joined, for a model that joins them.
    """

    body: int = 64 << 20
    seconds: float = 60.0
    head: float = 10.0
    concurrency: int = 64
    connections: int = 1000
    workers: int = 2
    inline: float = 0.0
    batch: int = 32


class Endpoint:
    """What a path answers, by which model, and where its requests are counted."""

    __slots__ = ("get", "infer", "probe", "runner", "series", "service")

    def __init__(self, route: Route, service: Service, runner: Runner, series: Series) -> None:
        self.get = route.get
        self.infer = route.infer
        self.probe = route.probe
        self.service = service
        self.runner = runner
        self.series = series


class Exchange(Job):
    """A request on its way to its answer.

    ``caller`` is who asks, if that is known; ``refusal`` the answer of one that was refused before
    its body was read.
    """

    __slots__ = ("begin", "caller", "counted", "endpoint", "head", "keep_alive", "refusal")

    def __init__(self, headers: Headers, *, begin: float, head: bool, keep_alive: bool) -> None:
        super().__init__(None, b"", headers)
        self.begin = begin
        self.caller: bytes | None = None
        self.head = head
        self.keep_alive = keep_alive
        self.counted = False
        self.endpoint: Endpoint | None = None
        self.refusal: Reply | None = None


class Application:
    """Serves several :class:`Service`; the first answers where a path names none.

    ``in_flight`` counts the inferences it works on; ``last_refusal`` is when it last refused one
    because it drains (``time.perf_counter``).

    :param access_log: write a line for each request.
    :param guard: who may ask; None: whoever can reach it, and the gateway says who that is.
    """

    def __init__(
        self,
        services: Sequence[Service],
        limits: Limits,
        *,
        access_log: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.services = tuple(services)
        self.limits = limits
        self.guard = guard
        self.metrics = Metrics()
        self._access_log = access_log
        self.in_flight = 0
        self.last_refusal = 0.0
        watch = Watch()
        self._runners = {id(service): self._runner(service, watch) for service in self.services}
        self._endpoints: dict[bytes, Endpoint] = {}
        for service in self.services:
            for protocol in PROTOCOLS:
                routes = protocol(service, self.services)
                self._add(service, protocol.__module__.rpartition(".")[2], routes)
        self._add(
            self.services[0],
            "server",
            {
                "/metrics": Route(get=self._page),
                "/v2/repository/index": Route(infer=self._index),
            },
        )
        self._nowhere = self.metrics.series("", "", "", "")
        self._elsewhere = {
            id(service): self.metrics.series(service.name, service.version, "grpc", "ModelInfer")
            for service in self.services
        }

    @property
    def busy(self) -> bool:
        """Whether threads compute, be it for somebody who is gone."""
        return any(runner.busy for runner in self._runners.values())

    def warm_up(self, *requests: bytes) -> None:
        """Have every service answer an Open Inference request; in their order.

        :raises ModelError: a model cannot answer it.
        """
        for service, request in zip(self.services, requests, strict=True):
            path = f"/v2/models/{service.name}/versions/{service.version}/infer"
            endpoint = self._endpoints[path.encode()]
            assert endpoint.infer is not None
            try:
                endpoint.runner.warm_up(endpoint.infer, request)
            except RequestError as refused:
                raise ModelError(
                    f"{service.name} cannot answer its golden request: {refused.message}"
                ) from refused

    def admit(self, exchange: Exchange, method: bytes, target: bytes) -> None:
        """Find out what answers a request, or refuse it; its body was not read yet."""
        try:
            endpoint = exchange.endpoint = self._let_in(exchange, target)
            if endpoint.infer is None:
                if method not in (b"GET", b"HEAD"):
                    raise _wrong_method(method, "GET", "GET, HEAD")
                return
            if method != b"POST":
                raise _wrong_method(method, "POST", "POST")
            self._check(exchange.headers)
            self._take(endpoint.service)
        except RequestError as refused:
            exchange.refusal = reply_of(refused)
            return
        exchange.counted = True
        exchange.infer = endpoint.infer

    def start(self, exchange: Exchange, done: Done) -> Outcome | None:
        """The answer to a whole request; or None, and ``done`` will be told of it."""
        endpoint = exchange.endpoint
        assert endpoint is not None
        if endpoint.get is None:
            endpoint.runner.start(exchange, done)
            return None
        try:
            return endpoint.get()
        except Exception:
            log.exception("a request failed")
            return RequestError(500, "the server failed on this request")

    def close(self, exchange: Exchange, status: int) -> None:
        """It was answered; or is given up, which counts as 499."""
        if exchange.counted:
            exchange.counted = False
            self.in_flight -= 1
        endpoint = exchange.endpoint
        series = self._nowhere if endpoint is None else endpoint.series
        seconds = time.perf_counter() - exchange.begin
        series.observe(status, exchange.caller, seconds)
        if self._access_log:
            route = series.labels["route"] or "-"
            log.info("%s %d %.1f ms", route, status, seconds * 1000)

    async def infer(self, service: Service, infer: Infer, body: bytes, headers: Headers) -> Reply:
        """Answer a request that came another way than HTTP/1.1, under the same limits.

        :raises RequestError: it is not answered.
        """
        begin = time.perf_counter()
        series, caller = self._elsewhere[id(service)], headers.get(CALLER)
        try:
            self._take(service)
        except RequestError as refused:
            series.observe(refused.status, caller, 0.0)
            raise
        outcome: Outcome = RequestError(499, "the client is gone")
        job = Job(infer, body, headers)
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(_: Job, outcome: Outcome) -> None:
            if not waiting.done():
                waiting.set_result(outcome)

        self._runners[id(service)].start(job, done)
        try:
            async with asyncio.timeout(self.limits.seconds):
                outcome = await waiting
        except TimeoutError:
            outcome = self.too_slow()
        finally:
            job.end()
            self.in_flight -= 1
            series.observe(outcome.status, caller, time.perf_counter() - begin)
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    def count_refusal(self, status: int) -> None:
        """Count a request that came another way than HTTP/1.1 and was not let in."""
        self._nowhere.observe(status, None, 0.0)

    def too_large(self) -> RequestError:
        """A body is larger than the limit."""
        return RequestError(413, f"the body is larger than {self.limits.body} bytes")

    def too_slow(self) -> RequestError:
        """The model took longer than the limit."""
        return RequestError(504, f"the answer took longer than {self.limits.seconds:g} s")

    def _let_in(self, exchange: Exchange, target: bytes) -> Endpoint:
        """What answers a request of somebody who may ask for it.

        :raises RequestError: 401, 403, 404, 429.
        """
        found = self._endpoints.get(target)
        guard = self.guard
        if guard is None:
            exchange.caller = exchange.headers.get(CALLER)
            return found or self._find(target)
        found = exchange.endpoint = found or self._endpoints.get(_path_of(target))
        if found is not None and found.probe:
            return found
        key = guard.key(exchange.headers)  # first: who has none learns no names
        found = found or self._find(target)
        exchange.caller = guard.admit(key, found.service)
        return found

    def _check(self, headers: Headers) -> None:
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(415, "content-encoding: compressed bodies are not served")
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise RequestError(501, "transfer-encoding: only chunked is known here")
        # The HTTP parser has made sure that the length is a number.
        if int(headers.get(b"content-length", 0)) > self.limits.body:
            raise self.too_large()

    def _take(self, service: Service) -> None:
        """One more in flight.

        :raises RequestError: (503) the service drains, or enough are.
        """
        if service.draining:
            self.last_refusal = time.perf_counter()
            raise RequestError(503, "this server is stopping", headers=_LATER)
        if self.in_flight >= self.limits.concurrency:
            raise RequestError(503, "too many requests at once", headers=_LATER)
        self.in_flight += 1

    def _runner(self, service: Service, watch: Watch) -> Runner:
        model, threads = service.model, self.limits.workers
        if isinstance(model, Batched):
            # Those that wait for company wait in threads.
            threads += self.limits.batch
            self.metrics.batches(service.name, service.version, model.sizes)
        return Runner(model, threads=threads, inline=self.limits.inline, watch=watch)

    def _add(self, service: Service, protocol: str, routes: Mapping[str, Route]) -> None:
        """The paths of a service that none before it has."""
        runner = self._runners[id(service)]
        for path, route in routes.items():
            if path.encode() not in self._endpoints:
                series = self.metrics.series(service.name, service.version, protocol, path)
                self._endpoints[path.encode()] = Endpoint(route, service, runner, series)

    def _find(self, target: bytes) -> Endpoint:
        """What answers a target that is not just a path as we write it.

        :raises RequestError: (404) nothing does.
        """
        path = _path_of(target)
        if endpoint := self._endpoints.get(path):
            return endpoint
        text = path.decode("utf-8", "replace")
        parts = text.split("/")
        if parts[1:3] == ["v2", "models"] and len(parts) > 3:
            versions = [known.version for known in self.services if known.name == parts[3]]
            if not versions:
                names = _known(known.name for known in self.services)
                raise RequestError(404, f"no model {parts[3][:100]!r} here; {names}")
            asked = "".join(parts[5:6])
            if parts[4:5] == ["versions"] and asked not in versions:
                raise RequestError(404, f"no version {asked[:100]!r} here; {_known(versions)}")
        raise RequestError(
            404, f"nothing at {text[:200]!r}; docs and openapi.json say what there is"
        )

    def _page(self) -> Reply:
        return Reply(200, self.metrics.page(self.in_flight), CONTENT_TYPE)

    def _index(self, body: bytes, headers: Headers, call: Call) -> Reply:  # noqa: ARG002
        """The models of this server (Triton's model repository extension)."""
        models = [
            {"name": service.name, "version": service.version, "state": "READY", "reason": ""}
            for service in self.services
        ]
        return Reply(200, orjson.dumps(models))


def _path_of(target: bytes) -> bytes:
    """The path that a target means, however it is written."""
    if target.startswith(b"http"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(target.partition(b"?")[0])


def reply_of(outcome: Outcome) -> Reply:
    """The answer to send."""
    if isinstance(outcome, RequestError):
        return error_reply(outcome.status, outcome.message, outcome.headers)
    return outcome


def _wrong_method(method: bytes, use: str, allow: str) -> RequestError:
    message = f"use {use}, not {method.decode('latin-1')}"
    return RequestError(405, message, headers={"allow": allow})


def _known(names: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(map(repr, names)))
    return ("this is " if len(distinct) == 1 else "there are ") + ", ".join(distinct)

"""Open Inference Protocol, version 2, gRPC (``inference.GRPCInferenceService``).

Source: https://github.com/kserve/open-inference-protocol (``inference_grpc.md``). Runs in the event
loop of the HTTP server, and leaves limits, back-pressure and where a model runs to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from tracklayer.errors import PlatformError
from tracklayer.serving.grpc_tensors import answer, read
from tracklayer.serving.http import CALLER, Headers, Infer, Reply, Service
from tracklayer.serving.model import Call, RequestError
from tracklayer.serving.open_inference import server_metadata
from tracklayer.serving.protocol import open_inference_pb2 as messages
from tracklayer.sockets import LONGEST, accepts

if TYPE_CHECKING:
    from tracklayer.serving.guard import Guard

log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Service, Infer, bytes, Headers], Awaitable[Reply]]
"""Answers a request with this body and headers under the server's limits; a cancelled one is ended.

:raises RequestError: it is not answered.
"""

_Method: TypeAlias = Callable[[Any, bytes, Headers], Awaitable[Any]]
"""From a message, parsed and as it came, to the answer: a message, or one's bytes."""

_UNIX = "unix:"
_ADDRESS = re.compile(r".+:(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])")
"""A host and a port: the library takes what is above 65,535 for another one."""
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status of a refusal -> gRPC's; others are INTERNAL."""

_MESSAGE = 1000
"""Characters of a refusal: it travels in a header, and clients take no large ones."""

_SPARE = 16
"""Calls beyond those that infer: whether the server is alive can always be asked."""


async def serve(
    services: Sequence[Service],
    infer: Answer,
    address: str,
    *,
    body: int,
    seconds: float,
    concurrency: int,
    guard: Guard | None = None,
    refused: Callable[[int], None] = lambda _status: None,
) -> tuple[grpc.aio.Server, str]:
    """A running server, which ``stop(grace)`` ends, and the address on which it listens.

    :param services: the first of a name answers where a request names no version.
    :param address: ``unix:/path``, owner-only, or ``host:port``; port 0 takes a free one.
    :param body: bytes of a message.
    :param seconds: for a message to arrive.
    :param concurrency: inferences being read, waiting or running.
    :param guard: who may ask; None: whoever can reach it.
    :param refused: told the status of each request that is not let in.
    :raises PlatformError: it cannot be listened on.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", body),
            ("grpc.max_send_message_length", -1),
            # Else a second server shares the port, and takes half of the calls.
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=concurrency + _SPARE,
    )
    handlers = {
        name: _handler(method, getattr(messages, f"{name}Request"), seconds)
        for name, method in _Methods(services, infer, guard, refused).table().items()
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)]
    )
    bound = _bind(server, address)
    await server.start()
    return server, bound


class _Methods:
    """The methods of the protocol, from message to message."""

    def __init__(
        self,
        services: Sequence[Service],
        infer: Answer,
        guard: Guard | None,
        refused: Callable[[int], None],
    ) -> None:
        self._services = services
        self._infer = infer
        self._guard = guard
        self._refused = refused

    def table(self) -> dict[str, _Method]:
        """What answers, by its name in the protocol."""
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }

    async def _server_live(self, *_: object) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, *_: object) -> Any:
        ready = not any(service.draining for service in self._services)
        return messages.ServerReadyResponse(ready=ready)

    async def _model_ready(
        self, request: messages.ModelReadyRequest, _: bytes, headers: Headers
    ) -> Any:
        service, _caller = self._admitted(request.name, request.version, headers)
        return messages.ModelReadyResponse(ready=not service.draining)

    async def _server_metadata(self, _: object, __: bytes, headers: Headers) -> Any:
        first = self._services[0]
        self._admitted(first.name, first.version, headers)
        return messages.ServerMetadataResponse(**server_metadata())

    async def _model_metadata(
        self, request: messages.ModelMetadataRequest, _: bytes, headers: Headers
    ) -> Any:
        service, _caller = self._admitted(request.name, request.version, headers)
        signature = service.model.signature
        metadata = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name=service.name,
            versions=[known.version for known in self._services if known.name == service.name],
            platform=service.model.platform,
            inputs=[metadata(**tensor.metadata()) for tensor in signature.inputs],
            outputs=[metadata(**tensor.metadata()) for tensor in signature.outputs],
        )

    async def _model_infer(
        self, request: messages.ModelInferRequest, data: bytes, headers: Headers
    ) -> Any:
        service, headers = self._admitted(request.model_name, request.model_version, headers)

        def infer(_: bytes, __: Headers, call: Call) -> Reply:
            asked = read(service.model, request)
            results = service.model.run(asked.feeds, asked.outputs, call)
            return Reply(200, answer(service, request.id, asked, results).SerializeToString())

        return (await self._infer(service, infer, data, headers)).body

    def _admitted(self, name: str, version: str, headers: Headers) -> tuple[Service, Headers]:
        """The model that answers, and the headers with who asks.

        :raises RequestError: 401, 403, 404, 429.
        """
        try:
            if self._guard is None:
                return self._service(name, version), headers
            key = self._guard.key(headers)  # first: who has none learns no names
            service = self._service(name, version)
            return service, {**headers, CALLER: self._guard.admit(key, service)}
        except RequestError as refusal:
            self._refused(refusal.status)
            raise

    def _service(self, name: str, version: str) -> Service:
        versions = [service for service in self._services if service.name == name]
        if not versions:
            known = ", ".join(sorted({service.name for service in self._services}))
            raise RequestError(404, f"no model {name[:100]!r} here; models: {known}")
        for service in versions:
            if version in ("", service.version):
                return service
        known = ", ".join(service.version for service in versions)
        raise RequestError(404, f"no version {version[:100]!r} of {name!r} here; versions: {known}")


def _handler(method: _Method, request: Any, seconds: float) -> grpc.RpcMethodHandler:
    """The handler of a method with one message each way.

    It is registered as one that reads a stream: of such a one the reading can be timed.
    """

    async def call(stream: Any, context: grpc.aio.ServicerContext) -> bytes:
        try:
            data = await _received(stream, seconds)
            headers = {
                name.encode(): value if isinstance(value, bytes) else value.encode()
                for name, value in context.invocation_metadata() or ()
            }
            reply = await method(_parsed(request, data), data, headers)
            return reply if isinstance(reply, bytes) else bytes(reply.SerializeToString())
        except RequestError as refused:
            code = _CODES.get(refused.status, grpc.StatusCode.INTERNAL)
            message, later = refused.message[:_MESSAGE], refused.headers.get("retry-after")
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:
            log.exception("%s failed", request.DESCRIPTOR.name)
            code, later = grpc.StatusCode.INTERNAL, None
            message = "the server failed on this request"
        pause = (("grpc-retry-pushback-ms", f"{later}000"),) if later else ()
        await context.abort(code, message, pause)
        raise AssertionError("abort raises")

    return grpc.stream_unary_rpc_method_handler(call)


async def _received(stream: Any, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            async for data in stream:
                return bytes(data)
    except TimeoutError:
        raise RequestError(408, f"the message took longer than {seconds:g} s") from None
    raise RequestError(400, "the call has no message")


def _parsed(request: Any, data: bytes) -> Any:
    try:
        return request.FromString(data)
    except DecodeError as error:
        raise RequestError(400, f"the message is not a {request.DESCRIPTOR.name}") from error


def _bind(server: grpc.aio.Server, address: str) -> str:
    path = address.removeprefix(_UNIX)
    own = address.startswith(_UNIX)
    if not own and not _ADDRESS.fullmatch(address):
        raise PlatformError(
            f"gRPC cannot listen on {address}", hint="Name it as unix:/path or as host:port."
        )
    if own and (len(os.fsencode(path)) > LONGEST or accepts(Path(path))):
        raise PlatformError(
            f"cannot listen on {path}: its path is too long, or another process listens there"
        )
    # The file of a socket gets its mode when it is bound: nobody else can ever open it.
    before = os.umask(0o177) if own else None
    try:
        # What follows the colon is read as a part of a URI.
        port = server.add_insecure_port(f"{_UNIX}{quote(path)}" if own else address)
    except RuntimeError as error:
        raise PlatformError(
            f"gRPC cannot listen on {address}",
            hint="The address is in use, or it is neither unix:/path nor host:port.",
        ) from error
    finally:
        if before is not None:
            os.umask(before)
    return address if own else f"{address.rpartition(':')[0]}:{port}"

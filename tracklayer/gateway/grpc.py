"""gRPC at the gateway: Open Inference Protocol, version 2 (``inference.GRPCInferenceService``).

A call names its model, which is the project; its message is passed on as it came. Imported only
where gRPC is wanted, because the library takes its time and memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tracklayer.access import ANONYMOUS, Admission, Key, Refusal, carries_key
from tracklayer.errors import PlatformError
from tracklayer.gateway.grpc_call import Call
from tracklayer.gateway.grpc_links import LATER, SERVICE, Links, Metadata
from tracklayer.gateway.grpc_messages import model_of, readdressed
from tracklayer.gateway.http1 import CALLER_HEADER, NOT_TO_BACKEND, VERSION_HEADER
from tracklayer.gateway.table import Place, Table
from tracklayer.gateway.tls import Certificate
from tracklayer.gateway.usage import Usage
from tracklayer.serving.protocol import open_inference_pb2 as messages

log = logging.getLogger(__name__)

# The library logs a trace for each answer that its caller does not wait for any more.
logging.getLogger("grpc._cython.cygrpc").addFilter(
    lambda record: not record.getMessage().startswith("ExecuteBatchError")
)

_MODEL_METHODS = ("ModelReady", "ModelMetadata", "ModelInfer")

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Status of a refusal -> gRPC's."""

_CALLER = CALLER_HEADER.lower()
_VERSION = VERSION_HEADER.lower()
_NOT_PASSED_ON = {name.decode() for name in NOT_TO_BACKEND} | {"user-agent", _VERSION}

_SHOWN = 20
"""Projects that are named where there is none of the name asked for."""

_Answer: TypeAlias = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class _Refused(Exception):
    """A call is not passed on, or was not answered well."""

    def __init__(self, code: grpc.StatusCode, message: str, trailers: Metadata = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.trailers = code, message, trailers


class Listener:
    """The listener.

    :param limit: bytes of a message.
    :param patience: seconds for a message to arrive, and for a server to answer it.
    """

    def __init__(
        self, table: Table, admission: Admission, usage: Usage, *, limit: int, patience: float
    ) -> None:
        self._table = table
        self._admission = admission
        self._usage = usage
        self._patience = patience
        self._links = Links()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                # Else a second gateway shares the port, and takes half of the calls.
                ("grpc.so_reuseport", 0),
            ]
        )
        answers: dict[str, _Answer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            **{name: self._of_model(name) for name in _MODEL_METHODS},
        }
        handlers = {name: self._handler(answer) for name, answer in answers.items()}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )

    async def listen(self, host: str, port: int, certificate: Certificate | None) -> int:
        """Begin to serve; the port, which 0 leaves to the system.

        :raises PlatformError: the port is in use or the address is not one of this machine.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificate is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(certificate))
        except RuntimeError as error:
            raise PlatformError(
                f"gRPC cannot listen on {address}",
                hint="Stop the program that uses the port, or choose another port.",
            ) from error
        await self._server.start()
        return int(bound)

    def sweep(self) -> None:
        """Close the connections to servers that have left; to be called a few times a second."""
        self._links.sweep()

    async def stop(self, drain: float) -> None:
        """Answer what is at work, within ``drain`` seconds, and close all connections."""
        await self._server.stop(drain)
        await self._links.close()

    def _handler(self, answer: _Answer) -> grpc.RpcMethodHandler:
        """The handler of a method with one message each way.

        It is registered as one that reads a stream: of such a one the reading can be timed.
        """

        async def call(stream: Any, context: grpc.aio.ServicerContext) -> bytes:
            try:
                return await answer(await self._received(stream), context)
            except _Refused as refused:
                code, message, trailers = refused.code, refused.message, refused.trailers
            except Refusal as refused:
                code, message = _CODES[refused.status], refused.message
                later = refused.headers.get("Retry-After")
                trailers = ((LATER, f"{later}000"),) if later else ()
            except (grpc.aio.AbortError, grpc.aio.UsageError):
                raise
            except Exception:
                log.exception("a gRPC call failed")
                code, trailers = grpc.StatusCode.INTERNAL, ()
                message = "the gateway failed on this call"
            await context.abort(code, message, (*context.trailing_metadata(), *trailers))
            raise AssertionError("abort raises")

        return grpc.stream_unary_rpc_method_handler(call)

    async def _received(self, stream: Any) -> bytes:
        try:
            async with asyncio.timeout(self._patience):
                async for data in stream:
                    return bytes(data)
        except TimeoutError:
            message = f"the message took longer than {self._patience:g} s"
            raise _Refused(grpc.StatusCode.DEADLINE_EXCEEDED, message) from None
        raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")

    # What the gateway answers by itself.

    async def _server_live(self, *_: object) -> bytes:
        return bytes(messages.ServerLiveResponse(live=True).SerializeToString())

    async def _server_ready(self, *_: object) -> bytes:
        return bytes(messages.ServerReadyResponse(ready=True).SerializeToString())

    async def _server_metadata(self, *_: object) -> bytes:
        version = metadata.version("tracklayer")
        found = messages.ServerMetadataResponse(name="tracklayer", version=version)
        return bytes(found.SerializeToString())

    # What it passes on.

    def _of_model(self, method: str) -> _Answer:
        async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                name, version = model_of(data)
            except ValueError as error:
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
            given = tuple(context.invocation_metadata() or ())
            place, caller, passed_on = self._admitted(name, version, given)
            if place.pinned is not None:
                number = str(place.pinned.number)
                if (name, version) != (place.live.project, number):
                    data = readdressed(data, place.live.project, number)
            left = context.time_remaining()
            seconds = self._patience if left is None else min(self._patience, left)
            call = Call(self._links, self._usage, place, caller=caller)
            reply = await call.answer(method, data, passed_on, seconds)
            context.set_trailing_metadata(((_VERSION, str(call.version)),))
            if reply.code is not grpc.StatusCode.OK:
                raise _Refused(reply.code, reply.message, reply.trailers)
            return reply.data

        return answer

    def _admitted(
        self, name: str, version: str, given: Metadata
    ) -> tuple[Place, str, list[tuple[str, str | bytes]]]:
        """Where a call goes, who asks, and what the server is told with it.

        :raises Refusal: the caller is not let in.
        :raises _Refused: there is no such model.
        """
        # Of one and the same version both may speak.
        named = not version or name.endswith(f"@{version}")
        segment = (name if named else f"{name}@{version}").encode()
        place = self._table.places.get(segment) or self._table.missing(segment)
        fields = [
            (field, value if isinstance(value, bytes) else value.encode()) for field, value in given
        ]
        authorization, api_key = (dict(fields).get(key) for key in ("authorization", "x-api-key"))
        closed = self._admission.closed or (place is not None and place.live.closed)
        key: Key | None = None
        if closed or authorization or api_key:
            key = self._admission.caller(authorization, api_key, needed=closed)
        if place is None:
            raise _Refused(grpc.StatusCode.NOT_FOUND, self._no_project(name, key))
        if key is not None:
            self._admission.admit(key, place.live.project)
        if place.missing:
            raise _Refused(grpc.StatusCode.NOT_FOUND, place.missing)
        carried = [value for field, value in fields if field == "authorization"]
        dropped = any(carries_key(value, needed=closed) for value in carried)
        passed_on = [
            (field, value)
            for field, value in given
            if field not in _NOT_PASSED_ON
            and not field.startswith("grpc-")
            and not (dropped and field == "authorization")
        ]
        if key is None:
            return place, ANONYMOUS, passed_on
        return place, key.name, [*passed_on, (_CALLER, key.name)]

    def _no_project(self, name: str, key: Key | None) -> str:
        """Names what there is, as far as it may be shown to whoever asks."""
        shown = [
            project
            for project, live in sorted(self._table.live.items())
            if not (self._admission.closed or live.closed) or (key and key.opens(project))
        ]
        known = ", ".join(shown[:_SHOWN]) or "none"
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        return f"no project {name[:100]!r} here; there are: {known}{more}"


def _credentials(certificate: Certificate) -> Any:
    """TLS with what the certificate's files hold when a connection is made."""
    sent = certificate.pem

    def configuration() -> Any:
        chain, key = sent
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    def renewed() -> Any:
        nonlocal sent
        if certificate.pem is sent:
            return None
        sent = certificate.pem
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), renewed)

from __future__ import annotations

import asyncio
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tracklayer.errors import PlatformError
from tracklayer.serving.formats import load
from tracklayer.serving.grpc import serve
from tracklayer.serving.http import Headers, Infer, Reply, Service
from tracklayer.serving.model import RequestError
from tracklayer.serving.protocol import open_inference_pb2 as messages

SERVICE = "/inference.GRPCInferenceService/"
RAW = struct.pack("<4f", 0, 0.5, 1, 2)


class Client:
    """Calls methods, with messages or whatever bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def __call__(self, method: str, request: Any = b"", **options: Any) -> Any:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answer = await self.channel.unary_unary(SERVICE + method)(data, **options)
        return getattr(messages, f"{method}Response").FromString(answer)

    async def refusal(self, method: str, request: Any = b"") -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self(method, request)
        return caught.value.code(), caught.value.details() or ""


async def directly(service: Service, infer: Infer, body: bytes, headers: Headers) -> Reply:
    """Runs an inference in a thread, without limits."""
    return await asyncio.to_thread(infer, body, headers, service.model.call())


def use(
    folder: Path,
    test: Callable[[Client, list[Service]], Awaitable[None]],
    *,
    infer: Any = directly,
    address: str = "127.0.0.1:0",
    **limits: Any,
) -> None:
    async def run() -> None:
        model = load(folder)
        services = [Service("m", "3", model), Service("m", "2", model)]
        given = {"body": 1 << 20, "seconds": 5.0, "concurrency": 8} | limits
        server, bound = await serve(services, infer, address, **given)
        try:
            async with grpc.aio.insecure_channel(bound) as channel:
                await test(Client(channel), services)
        finally:
            await server.stop(0)

    asyncio.run(run())


def request(**changes: Any) -> Any:
    item = messages.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    fields = {"model_name": "m", "id": "a7", "inputs": [item], "raw_input_contents": [RAW]}
    return messages.ModelInferRequest(**fields | changes)


def test_every_method_answers(linear: Path) -> None:
    async def test(client: Client, services: list[Service]) -> None:
        assert (await client("ServerLive")).live
        assert (await client("ServerReady")).ready
        server = await client("ServerMetadata")
        assert (server.name, list(server.extensions)) == ("tracklayer", ["binary_tensor_data"])
        assert (await client("ModelReady", messages.ModelReadyRequest(name="m"))).ready
        asked = messages.ModelMetadataRequest(name="m", version="2")
        model = await client("ModelMetadata", asked)
        assert (model.name, list(model.versions)) == ("m", ["3", "2"])
        assert model.platform == "onnx_onnxv1"
        assert (model.inputs[0].name, list(model.inputs[0].shape)) == ("x", [-1, 4])
        assert (model.outputs[0].datatype, list(model.outputs[0].shape)) == ("FP32", [-1, 3])
        answer = await client("ModelInfer", request())
        assert (answer.model_version, answer.id) == ("3", "a7")
        assert sum(struct.unpack("<3f", answer.raw_output_contents[0])) == pytest.approx(1)
        answer = await client("ModelInfer", request(model_version="2"))
        assert answer.model_version == "2"
        services[1].draining = True
        assert not (await client("ServerReady")).ready
        assert not (
            await client("ModelReady", messages.ModelReadyRequest(name="m", version="2"))
        ).ready

    use(linear, test)


def test_a_refusal_has_a_code_and_says_why(linear: Path) -> None:
    async def test(client: Client, _: object) -> None:
        for asked, code, message in (
            (b"\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest"),
            (request(model_name="z"), "NOT_FOUND", "no model 'z' here; models: m"),
            (request(model_version="9"), "NOT_FOUND", "no version '9' of 'm' here; versions: 3, 2"),
            (request(raw_input_contents=[]), "INVALID_ARGUMENT", "inputs[0] 'x': shape [1, 4]"),
            (request(id="a" * 2_000_000), "RESOURCE_EXHAUSTED", "larger than max"),
        ):
            got, text = await client.refusal("ModelInfer", asked)
            assert got is grpc.StatusCode[code]
            assert message in text
        got, _text = await client.refusal("ModelReady", messages.ModelReadyRequest(name="é"))
        assert got is grpc.StatusCode.NOT_FOUND
        got, _text = await client.refusal("ModelMetadata", b"\x07")
        assert got is grpc.StatusCode.INVALID_ARGUMENT

    use(linear, test)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (413, "RESOURCE_EXHAUSTED"),
        (429, "RESOURCE_EXHAUSTED"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (500, "INTERNAL"),
    ],
)
def test_a_refusal_of_the_server_keeps_its_meaning(linear: Path, status: int, code: str) -> None:
    async def refuse(*_: object) -> Reply:
        raise RequestError(status, "no " * 1000, headers={"retry-after": "2"})

    async def test(client: Client, _: object) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client("ModelInfer", request())
        assert caught.value.code() is grpc.StatusCode[code]
        assert len(caught.value.details() or "") == 1000
        assert ("grpc-retry-pushback-ms", "2000") in list(caught.value.trailing_metadata() or ())

    use(linear, test, infer=refuse)


def test_a_fault_of_ours_shows_no_trace(linear: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: object) -> Reply:
        raise ZeroDivisionError("inside")

    async def test(client: Client, _: object) -> None:
        code, message = await client.refusal("ModelInfer", request())
        assert code is grpc.StatusCode.INTERNAL
        assert message == "the server failed on this request"
        assert "inside" in caplog.text

    use(linear, test, infer=fail)


def test_who_asks_is_told_to_the_server(linear: Path) -> None:
    seen: list[Headers] = []

    async def note(service: Service, infer: Infer, body: bytes, headers: Headers) -> Reply:
        seen.append(headers)
        return await directly(service, infer, body, headers)

    async def test(client: Client, _: object) -> None:
        await client("ModelInfer", request(), metadata=(("x-tracklayer-caller", "ada"),))
        assert seen[0][b"x-tracklayer-caller"] == b"ada"

    use(linear, test, infer=note)


def test_a_call_that_is_given_up_ends_in_the_server(linear: Path) -> None:
    ended = asyncio.Event()

    async def endless(*_: object) -> Reply:
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    async def test(client: Client, _: object) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client("ModelInfer", request(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(ended.wait(), 5)

    use(linear, test, infer=endless)


def test_a_message_that_does_not_come_is_not_waited_for(linear: Path) -> None:
    async def test(client: Client, _: object) -> None:
        call = client.channel.stream_unary(f"{SERVICE}ModelInfer")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call, 5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == "the message took longer than 0.2 s"
        call = client.channel.stream_unary(f"{SERVICE}ModelInfer")()
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match="the call has no message"):
            await call

    use(linear, test, seconds=0.2)


def test_so_many_calls_at_a_time_and_no_more(linear: Path) -> None:
    async def test(client: Client, _: object) -> None:
        calls = [client.channel.stream_unary(f"{SERVICE}ModelInfer")() for _ in range(17)]
        await asyncio.sleep(0.2)
        code, _text = await client.refusal("ServerLive")
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
        await asyncio.sleep(0.2)
        assert (await client("ServerLive")).live

    use(linear, test, concurrency=1)


def test_a_unix_socket_is_its_owners_alone(linear: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def test(client: Client, _: object) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await client("ServerLive")).live
        with pytest.raises(PlatformError, match="another process listens there"):
            await serve([], directly, f"unix:{path}", body=1, seconds=1, concurrency=1)

    use(linear, test, address=f"unix:{path}")


def test_an_address_in_use_is_refused() -> None:
    async def run(address: str) -> None:
        await serve([], directly, address, body=1, seconds=1, concurrency=1)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PlatformError, match=f"gRPC cannot listen on {address}"):
            asyncio.run(run(address))

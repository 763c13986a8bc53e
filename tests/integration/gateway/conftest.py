"""Real gateways in front of real model servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import grpc
import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tracklayer.errors import PlatformError
from tracklayer.gateway import GatewayClient
from tracklayer.gateway.haproxy import program
from tracklayer.serving.protocol import open_inference_pb2 as messages
from tracklayer.sockets import grpc_beside, listen_unix

SERVICE = "inference.GRPCInferenceService"


@dataclass
class Server:
    """A running model server."""

    version: int
    socket: Path
    process: subprocess.Popen[str]


@dataclass
class Gateway:
    """A running gateway and its client. ``grpc``: its address, if it was started with one."""

    url: str
    process: subprocess.Popen[str]
    client: GatewayClient
    grpc: str = ""


class Echo:
    """A server that answers with the request it got, as its owner wishes.

    :ivar status: of its answers.
    :ivar dies: it closes the connection instead, when it has read the request.
    :ivar asked: requests that it read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = 200
        self.dies = False
        self.asked = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError)
        with contextlib.suppress(*over):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = [line.split(": ", 1) for line in head[1:-2]]
                length = await self._read(reader, {n.lower(): v for n, v in headers})
                self.asked += 1
                if self.dies:
                    break
                method, target, _ = head[0].split(" ")
                shown = {"method": method, "path": target, "bytes": length}
                body = json.dumps({**shown, "headers": [[n.lower(), v] for n, v in headers]})
                answer = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                writer.write(answer.encode())
        writer.close()

    async def _read(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> int:
        """Bytes of the body."""
        if "transfer-encoding" not in headers:
            return len(await reader.readexactly(int(headers.get("content-length", 0))))
        length = 0
        while size := int(await reader.readline() or b"0", 16):
            length += size
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
        return length


class Peer:
    """A server that answers a call of gRPC with the model that it was asked for, as its owner
    wishes; where its HTTP would be, nobody answers.

    :ivar code: of its answers.
    :ivar trailers: of its refusals.
    :ivar seconds: that an answer takes.
    :ivar told: the metadata of each call that it got.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = grpc.StatusCode.OK
        self.trailers: tuple[tuple[str, str], ...] = ()
        self.seconds = 0.0
        self.told: list[dict[str, str]] = []
        self._http = listen_unix(path)
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool)
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": handler})]
        )
        self._server.add_insecure_port(f"unix:{grpc_beside(path)}")
        self._server.start()

    @property
    def asked(self) -> int:
        return len(self.told)

    def stop(self) -> None:
        """As a process that is killed: it answers nothing any more."""
        self._server.stop(0).wait()
        self._http.close()
        self._pool.shutdown(wait=False)

    def _answer(self, data: bytes, context: Any) -> bytes:
        self.told.append(dict(context.invocation_metadata()))
        time.sleep(self.seconds)
        if self.code is not grpc.StatusCode.OK:
            context.set_trailing_metadata(self.trailers)
            context.abort(self.code, "as its owner wishes")
        asked = messages.ModelInferRequest.FromString(data)
        answer: bytes = messages.ModelInferResponse(
            model_name=asked.model_name, model_version=asked.model_version, id=asked.id
        ).SerializeToString()
        return answer


class Users:
    """Threads that ask without a pause, and what they got.

    :param ask: the version that answers; raises ValueError for a wrong answer.
    """

    def __init__(
        self, ask: Callable[[httpx.Client], int], clients: int = 2, pause: float = 0
    ) -> None:
        self.answers: list[tuple[float, int]] = []
        self.failures: list[str] = []
        self._ask, self._pause = ask, pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def count(self, since: float = 0.0) -> Counter[int]:
        """How many answers each version gave."""
        return Counter(version for at, version in list(self.answers) if at >= since)

    def _run(self) -> None:
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append((time.time(), self._ask(client)))
                except (httpx.HTTPError, ValueError) as error:
                    self.failures.append(repr(error))
                time.sleep(self._pause)


Serve = Callable[..., Server]
Open = Callable[..., Gateway]
MakeEcho = Callable[[], Echo]
MakePeer = Callable[[], Peer]
Adding = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def users() -> type[Users]:
    """:class:`Users`."""
    return Users


@pytest.fixture(scope="session")
def adding() -> Adding:
    """Makes a model that adds a number to its input ``x``, a [batch, 1], after so many products of
    large matrices, which take their time and change nothing."""

    def make(added: int, work: int = 0) -> onnx.ModelProto:
        weights = {"added": np.array([added], dtype=np.float32)}
        nodes, last = [], "x"
        if work:
            weights["zeros"] = np.zeros((512, 512), dtype=np.float32)
            weights["row"] = np.zeros((1, 512), dtype=np.float32)
            nodes = [
                helper.make_node("Add", ["x", "row"], ["wide"]),
                helper.make_node("Add", ["wide", "zeros"], ["m0"]),
                *(
                    helper.make_node("MatMul", [f"m{n}", "zeros"], [f"m{n + 1}"])
                    for n in range(work)
                ),
                helper.make_node("ReduceSum", [f"m{work}"], ["none"], keepdims=0),
                helper.make_node("Add", ["x", "none"], ["slow"]),
            ]
            last = "slow"
        graph = helper.make_graph(
            [*nodes, helper.make_node("Add", [last, "added"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        return model

    return make


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[MakeEcho]:
    """Starts an :class:`Echo`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    count = 0

    def begin() -> Echo:
        nonlocal count
        count += 1
        made = Echo(tmp_path / f"echo{count}.sock")
        starting = asyncio.start_unix_server(made.talk, made.path)
        asyncio.run_coroutine_threadsafe(starting, loop).result(10)
        return made

    async def end() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    yield begin
    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[MakePeer]:
    """Starts a :class:`Peer`."""
    made: list[Peer] = []

    def begin() -> Peer:
        made.append(Peer(tmp_path / f"peer{len(made)}.sock"))
        return made[-1]

    yield begin
    for each in made:
        each.stop()


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m <module>``; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(module: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def serve(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]], adding: Adding) -> Serve:
    """Starts a server whose model adds its version to the input ``x``, a [batch, 1]."""
    count = 0

    def begin(version: int, *arguments: object, name: str = "digits", grpc: bool = False) -> Server:
        nonlocal count
        count += 1
        folder = tmp_path / f"model{count}"
        folder.mkdir()
        onnx.save(adding(version), folder / "model.onnx")
        # A path as any other.
        socket = tmp_path / f"{count} 100%25.sock"
        process = spawn(
            "tracklayer.serving",
            *("--model", folder, "--name", name, "--version", version, "--socket", socket),
            *(("--grpc", f"unix:{grpc_beside(socket)}") if grpc else ()),
            *arguments,
        )
        assert process.stdout is not None
        for _ in range(2 if grpc else 1):
            assert process.stdout.readline(), process.communicate()[1]
        return Server(version, socket, process)

    return begin


@pytest.fixture(scope="session")
def haproxy(give_up: Callable[[str], Never]) -> str:
    """The program of this machine."""
    try:
        return program()
    except PlatformError as error:
        give_up(error.message)


@pytest.fixture(scope="session", params=["embedded", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    """Who takes the connections: every test of a gateway is one of both."""
    kind: str = request.param
    if kind == "haproxy":
        request.getfixturevalue("haproxy")
    return kind


@pytest.fixture
def gateway(tmp_path: Path, spawn: Callable[..., subprocess.Popen[str]], proxy: str) -> Open:
    """Starts a gateway on a free port, always with the same routes file and socket."""

    def begin(*arguments: object) -> Gateway:
        admin = tmp_path / "admin.sock"
        process = spawn(
            "tracklayer.gateway",
            *("--port", 0, "--admin", admin, "--routes", tmp_path / "routes.json"),
            *("--state", tmp_path / "state", "--proxy", proxy, *arguments),
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("gateway listening on"), process.communicate()[1]
        address = ""
        if "--grpc-port" in arguments:
            address = process.stdout.readline().split()[-1]
        return Gateway(line.split()[-1], process, GatewayClient(admin), address)

    return begin

"""gRPC of a real server, beside its HTTP."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tracklayer.serving.protocol import open_inference_pb2 as messages

Start = Callable[..., subprocess.Popen[str]]
Connect = Callable[[Path], httpx.Client]

SERVICE = "/inference.GRPCInferenceService/"


def ready(process: subprocess.Popen[str]) -> str:
    """The address of gRPC, which is told after that of HTTP."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert lines[1].startswith("serving gRPC on "), process.communicate()[1]
    return lines[1].removeprefix("serving gRPC on ").strip()


def times(count: int) -> bytes:
    contents = messages.InferTensorContents(int64_contents=[count])
    item = messages.ModelInferRequest.InferInputTensor(
        name="times", datatype="INT64", shape=[1], contents=contents
    )
    request: bytes = messages.ModelInferRequest(
        model_name="m", id=str(count), inputs=[item]
    ).SerializeToString()
    return request


def infer(channel: grpc.Channel, count: int, **options: Any) -> Any:
    answer = channel.unary_unary(f"{SERVICE}ModelInfer")(times(count), **options)
    return messages.ModelInferResponse.FromString(answer)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return str(caught.value.code().name)


def test_it_serves_beside_http_and_stops_cleanly(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path, other = tmp_path / "s", tmp_path / "g"
    process = start(model, "--socket", path, "--grpc", f"unix:{other}")
    address = ready(process)
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
    with grpc.insecure_channel(address) as channel, on_socket(path) as client:
        answer = infer(channel, 3, metadata=(("x-tracklayer-caller", "alice"),))
        assert (answer.id, answer.outputs[0].contents.fp32_contents[0]) == ("3", 0.0)
        body = {"inputs": [1]}
        assert client.post("/invocations", json=body).json() == {"predictions": 0.0}
        page = client.get("/metrics").text
        assert 'protocol="grpc"' in page
        assert 'caller="alice"' in page
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert process.communicate()[1] == ""


def test_the_path_of_a_socket_is_taken_as_it_is(model: Path, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "a b%20c"
    folder.mkdir()
    ready(start(model, "--socket", folder / "s", "--grpc", f"unix:{folder}/g?1"))
    assert (folder / "g?1").is_socket()


def test_grpc_is_imported_only_where_it_is_wanted(model: Path, tmp_path: Path) -> None:
    program = """
import json, sys
from tracklayer.serving import __main__, server
def over(self):
    sys.stdout.write(json.dumps(sorted(sys.modules)))
    return True
server.Server._is_over = over
__main__.main(sys.argv[1:])
"""
    arguments = ["--model", model, "--name", "m", "--version", "1", "--socket", tmp_path / "s"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    modules = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "tracklayer.serving.open_inference" in modules
    assert not modules & {"grpc", "google.protobuf", "mlflow", "onnx", "pandas"}


def test_requests_in_flight_are_answered_and_new_ones_refused_at_a_stop(
    model: Path, start: Start, tmp_path: Path
) -> None:
    process = start(model, "--socket", tmp_path / "s", "--grpc", "127.0.0.1:0")
    with grpc.insecure_channel(ready(process)) as channel, ThreadPoolExecutor() as pool:
        slow = pool.submit(infer, channel, 100_000)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert not slow.done()
        with pytest.raises(grpc.RpcError) as refused:
            infer(channel, 1)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.value.details() == "this server is stopping"
        assert slow.result().id == "100000"
    assert process.wait(15) == 0


def test_it_has_the_limits_of_http(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    limits = ("--timeout", 2, "--concurrency", 1, "--max-body", 4096)
    address = ready(start(model, "--socket", path, "--grpc", "127.0.0.1:0", *limits))
    with (
        grpc.insecure_channel(address) as channel,
        on_socket(path) as client,
        ThreadPoolExecutor() as pool,
    ):
        endless = pool.submit(code, lambda: infer(channel, 10**9))
        time.sleep(0.5)
        assert client.get("/v2/health/live").status_code == 200
        live = channel.unary_unary(f"{SERVICE}ServerLive")(b"")
        assert messages.ServerLiveResponse.FromString(live).live
        assert code(lambda: infer(channel, 1)) == "UNAVAILABLE"
        assert client.post("/invocations", json={"inputs": [1]}).status_code == 503
        assert endless.result() == "DEADLINE_EXCEEDED"
        call = channel.unary_unary(f"{SERVICE}ModelInfer")
        assert code(lambda: call(bytes(5000))) == "RESOURCE_EXHAUSTED"
        assert infer(channel, 2).id == "2"


def test_calls_are_counted_for_their_caller(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    address = ready(
        start(*(model, "--socket", path, "--grpc", "127.0.0.1:0"), *("--concurrency", 1))
    )
    ada = (("x-tracklayer-caller", "ada"),)
    with (
        grpc.insecure_channel(address) as channel,
        on_socket(path) as client,
        ThreadPoolExecutor() as pool,
    ):
        infer(channel, 1, metadata=ada)
        infer(channel, 1)
        endless = pool.submit(code, lambda: infer(channel, 10**9, timeout=2))
        time.sleep(0.5)
        assert code(lambda: infer(channel, 1, metadata=ada)) == "UNAVAILABLE"
        assert endless.result() == "DEADLINE_EXCEEDED"
        page = client.get("/metrics").text
    labels = 'model="m",version="3",protocol="grpc",route="ModelInfer"'
    for status, caller in (("200", "ada"), ("200", ""), ("503", "ada")):
        counted = f'tracklayer_requests_total{{{labels},code="{status}",caller="{caller}"}} 1'
        assert counted in page, page


def test_a_call_that_is_given_up_makes_room(model: Path, start: Start, tmp_path: Path) -> None:
    address = ready(
        start(
            *(model, "--socket", tmp_path / "s", "--grpc", "127.0.0.1:0"),
            *("--concurrency", 1, "--workers", 1),
        )
    )
    with grpc.insecure_channel(address) as channel:
        assert code(lambda: infer(channel, 10**9, timeout=0.5)) == "DEADLINE_EXCEEDED"
        begin = time.monotonic()
        answer = infer(channel, 1, timeout=10)
        assert answer.id == "1"
        assert time.monotonic() - begin < 5


def test_many_clients_at_once_get_their_own_answers(
    model: Path, start: Start, tmp_path: Path
) -> None:
    address = ready(start(model, "--socket", tmp_path / "s", "--grpc", "127.0.0.1:0"))
    wrong: list[object] = []

    def ask(caller: int) -> None:
        with grpc.insecure_channel(address) as channel:
            for number in range(20):
                count = caller * 100 + number
                if infer(channel, count).id != str(count):
                    wrong.append(count)

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_address_in_use_ends_the_start_with_one_message(
    model: Path, start: Start, tmp_path: Path
) -> None:
    address = ready(start(model, "--socket", tmp_path / "s", "--grpc", "127.0.0.1:0"))
    second = start(model, "--socket", tmp_path / "t", "--grpc", address)
    _, errors = second.communicate(timeout=30)
    assert second.returncode == 13
    assert f"gRPC cannot listen on {address}" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "t").exists()

from __future__ import annotations

import contextlib
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tracklayer.serving import golden

Start = Callable[..., subprocess.Popen[str]]
Connect = Callable[[Path], httpx.Client]

INFER = "/v2/models/m/infer"


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving m version"), process.communicate()[1]
    return line.split()[-1]


def times(count: int) -> dict[str, Any]:
    return {"inputs": [{"name": "times", "shape": [1], "datatype": "INT64", "data": [count]}]}


def test_it_serves_on_an_owner_only_socket_and_stops_cleanly(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(model, "--socket", path)
    ready(process)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with on_socket(path) as client:
        assert client.get("/v2/models/m/versions/3/ready").json() == {"name": "m", "ready": True}
        made = golden(model)
        made.check(client.post(INFER, json=made.request).json())
        assert "server" not in client.get("/ping").headers
    assert psutil.Process(process.pid).memory_info().rss < 120 << 20
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not path.exists()
    assert process.communicate()[1] == ""


def test_it_serves_on_a_free_port(model: Path, start: Start) -> None:
    url = ready(start(model, "--port", 0))
    answer = httpx.post(f"{url}/invocations", json={"instances": [1]})
    assert answer.json() == {"predictions": 0.0}


def test_requests_in_flight_are_answered_and_new_ones_refused_at_a_stop(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(model, "--socket", path)
    ready(process)
    with on_socket(path) as one, on_socket(path) as two, ThreadPoolExecutor() as pool:
        two.get("/ping")
        slow = pool.submit(one.post, INFER, json=times(100_000))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert not slow.done()
        refused = two.post(INFER, json=times(1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert two.get("/v2/health/ready").status_code == 503
        assert two.get("/v2/health/live").status_code == 200
        assert slow.result().status_code == 200
    assert process.wait(10) == 0


def test_health_answers_while_a_long_inference_runs(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    ready(start(model, "--socket", path, "--timeout", 2))
    with on_socket(path) as one, on_socket(path) as two, ThreadPoolExecutor() as pool:
        endless = pool.submit(one.post, INFER, json=times(10**9))
        time.sleep(0.3)
        begin = time.monotonic()
        assert two.get("/v2/health/live").status_code == 200
        assert time.monotonic() - begin < 1
        assert endless.result().status_code == 504


def test_a_socket_left_by_a_killed_server_is_taken_over(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    first = start(model, "--socket", path)
    ready(first)
    second = start(model, "--socket", path)
    assert second.wait(20) == 13
    assert "another process listens there" in second.communicate()[1]
    first.kill()
    first.wait()
    assert path.exists()
    ready(start(model, "--socket", path))
    with on_socket(path) as client:
        assert client.get("/ping").status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x80\x04K\x01.", "is a pickle"), (b"?", "no known model")],
)
def test_a_wrong_model_ends_the_start_with_one_message(
    start: Start, tmp_path: Path, content: bytes, message: str
) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "model.bin").write_bytes(content)
    process = start(folder, "--socket", tmp_path / "s")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 9
    assert message in err
    assert "Traceback" not in err
    assert out == ""


WARM = """
from pathlib import Path

signature = {"inputs": {"x": ("FP64", ["batch"])}, "outputs": {"y": ("FP64", ["batch"])}}

def load(folder):
    pass

def predict(inputs):
    with Path("LOG").open("a") as log:
        log.write(f"{Path('SOCKET').exists()}\\n")
    FAULT
    return {"y": inputs["x"]}
"""


def test_it_is_warm_before_it_can_be_asked(
    start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    folder, log, path = tmp_path / "warm", tmp_path / "log", tmp_path / "s"
    folder.mkdir()
    code = WARM.replace("LOG", str(log)).replace("SOCKET", str(path))
    (folder / "handler.py").write_text(code.replace("FAULT", ""))
    ready(start(folder, "--socket", path, "--allow", "code"))
    calls = log.read_text().split()
    assert len(calls) >= 2  # the first pays for what is lazy
    assert set(calls) == {"False"}
    with on_socket(path) as client:
        assert client.post("/invocations", json={"inputs": [2]}).json() == {"predictions": [2.0]}
    assert log.read_text().split()[len(calls) :] == ["True"]


def test_a_model_that_cannot_answer_is_never_ready(start: Start, tmp_path: Path) -> None:
    folder, path = tmp_path / "cold", tmp_path / "s"
    folder.mkdir()
    code = WARM.replace("LOG", str(tmp_path / "log")).replace("SOCKET", str(path))
    (folder / "handler.py").write_text(code.replace("FAULT", "raise KeyError('no such thing')"))
    process = start(folder, "--socket", path, "--allow", "code")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, path.exists()) == (9, "", False)
    assert "golden request" in err
    assert "KeyError" in err


def test_a_port_in_use_ends_the_start_with_one_message(model: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(model, "--port", taken.getsockname()[1])
        _, err = process.communicate(timeout=20)
    assert process.returncode == 13
    assert "cannot listen on 127.0.0.1" in err
    assert "Traceback" not in err


BROKEN = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: -5\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 5\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 50\r\n\r\n{",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: m\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
]


def test_broken_http_does_not_hurt_it(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(model, "--socket", path, "--timeout", 1, "--max-body", 1 << 20)
    ready(process)
    for data in BROKEN:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(0.3)
            raw.connect(str(path))
            answer = b""
            with contextlib.suppress(OSError):
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                answer = raw.recv(10_000)
            assert not answer or answer.split()[1][:1] == b"4", (data[:60], answer)
            assert b"Traceback" not in answer
    with on_socket(path) as client:
        assert client.post(INFER, json=times(1)).status_code == 200
        assert client.post(INFER, content=b" " * (2 << 20)).status_code == 413
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "Traceback" not in process.communicate()[1]


def test_many_clients_at_once_get_their_own_answers(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    ready(start(model, "--socket", path))
    wrong: list[object] = []

    def ask(caller: int) -> None:
        with on_socket(path) as client:
            for number in range(50):
                name = f"{caller}-{number}"
                answer = client.post(INFER, json={"id": name, **times(caller)}).json()
                if answer.get("id") != name or answer["outputs"][0]["data"] != [0.0]:
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_models_and_versions_in_one_server(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(
        model, "--model", f"m@4={model}", "--model", f"other@1={model}", "--socket", path
    )
    assert ready(process) == str(path)
    with on_socket(path) as client:
        for where, name, version in (
            (INFER, "m", "3"),
            ("/v2/models/m/versions/4/infer", "m", "4"),
            ("/v2/models/other/infer", "other", "1"),
        ):
            answer = client.post(where, json=times(1)).json()
            assert (answer["model_name"], answer["model_version"]) == (name, version)
        unknown = client.post("/v2/models/m/versions/5/infer", json=times(1))
        assert unknown.status_code == 404
        assert unknown.json() == {"error": "no version '5' here; there are '3', '4'"}
        unknown = client.post("/v2/models/else/infer", json=times(1))
        assert unknown.json() == {"error": "no model 'else' here; there are 'm', 'other'"}
        index = client.post("/v2/repository/index", json={}).json()
        assert [(each["name"], each["version"]) for each in index] == [
            ("m", "3"),
            ("m", "4"),
            ("other", "1"),
        ]
        page = client.get("/metrics").text
        assert 'model="other",version="1",protocol="open_inference"' in page
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m@3=/x"], "m version 3 is given twice"),
        (["--model", "n@1=/nowhere"], "there is no model folder /nowhere"),
    ],
)
def test_wrong_models_are_refused(
    model: Path, start: Start, tmp_path: Path, arguments: list[str], message: str
) -> None:
    process = start(model, *arguments, "--socket", tmp_path / "s")
    _, err = process.communicate(timeout=20)
    assert process.returncode in (2, 9)
    assert message in err
    assert "Traceback" not in err


def test_a_stop_does_not_wait_for_ever_for_an_inference(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(model, "--socket", path, "--drain", 0.5)
    ready(process)
    with on_socket(path) as client, ThreadPoolExecutor() as pool:
        endless = pool.submit(client.post, INFER, json=times(10**9))
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        with pytest.raises(httpx.TransportError):
            endless.result()
    assert process.communicate()[1] == ""


def test_hundred_megabytes_and_slow_clients_leave_it_as_it_was(
    model: Path, start: Start, on_socket: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(model, "--socket", path, "--max-body", 200 << 20, "--timeout", 30)
    ready(process)
    slow = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    with on_socket(path) as client:
        assert client.post(INFER, json=times(1)).status_code == 200
        before = psutil.Process(process.pid).memory_info().rss
        for raw in slow:
            raw.connect(str(path))
            raw.sendall(b"POST /invocations HTTP/1.1\r\nhost: m\r\ncontent-length: 10\r\n\r\n[")
        for body in (b"[" * 100_000_000, b" " * 100_000_000):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(path))
                raw.sendall(b"POST /invocations HTTP/1.1\r\nhost: m\r\n")
                raw.sendall(b"content-length: %d\r\n\r\n" % len(body))
                raw.sendall(body)
                assert raw.recv(1000).split()[1] == b"400"
        for _ in range(20):
            assert client.post(INFER, content=b"[" * (1 << 20)).status_code == 400
        # Others are served while the slow ones hold what they have.
        assert client.post(INFER, json=times(1)).status_code == 200
        for raw in slow:
            raw.close()
        assert client.post(INFER, json=times(1)).status_code == 200
        # Less than one of those bodies: what is freed is not all given back at once.
        assert psutil.Process(process.pid).memory_info().rss < before + (64 << 20)

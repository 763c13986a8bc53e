"""Clients that others wrote, in an environment of their own: they pin older packages than ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tracklayer.errors import TracklayerError
from tracklayer.packages import prepare

CLIENTS = Path(__file__).parent / "clients"
ECHO = {
    "words": (TensorProto.STRING, ["n"]),
    "halves": (TensorProto.FLOAT16, ["n"]),
    "numbers": (TensorProto.FLOAT, ["n", 2]),
    "flags": (TensorProto.BOOL, ["n"]),
}
SENT = {
    "words": ["é", "", "two words"],
    "halves": [0.5, -2, 65504],
    "numbers": [1, 2, 3, 4, 5.5, -6],
    "flags": [True, False, True],
}


@pytest.fixture(scope="session")
def python(give_up: Callable[[str], Never]) -> Path:
    """The interpreter of the clients' environment, kept in the user's cache between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracklayer-tests"
    lock = (CLIENTS / "requirements.lock").read_text().split()
    try:
        made = prepare(
            lock, python=sysconfig.get_python_version(), environments=cache / "environments"
        )
    except TracklayerError as error:
        give_up(f"the clients' environment cannot be built: {error}")
    return made.python


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of HTTP and gRPC of a server whose model gives back what it gets."""
    folder = tmp_path_factory.mktemp("echo")
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in ECHO.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_", *kind) for name, kind in ECHO.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in ECHO]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    command = [
        *(sys.executable, "-m", "tracklayer.serving", "--model", str(folder)),
        *("--name", "m", "--version", "3", "--port", "0", "--grpc", "127.0.0.1:0"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        http, grpc = (process.stdout.readline().split()[-1:] for _ in range(2))
        assert http, process.communicate()[1]
        assert grpc, process.communicate()[1]
        try:
            yield http[0].removeprefix("http://"), grpc[0]
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""


def run(python: Path, script: str, *arguments: str) -> Any:
    ended = subprocess.run(
        [python, CLIENTS / script, *arguments], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_tritons_http_client(python: Path, server: tuple[str, str]) -> None:
    found = run(python, "triton_http.py", server[0])
    assert found["live"]
    assert found["ready"]
    assert found["model ready"]
    assert "binary_tensor_data" in found["extensions"]
    assert found["inputs"] == list(ECHO)
    assert [model["name"] for model in found["index"]] == ["m"]
    for case in ("all in bytes", "mixed", "json back", "no outputs named"):
        assert found[case] == SENT, case
    assert found["mixed: id"] == "r1"
    assert found["unknown input"][0] == "400"
    assert "inputs[0]: no input 'z'" in found["unknown input"][1]
    assert found["wrong shape"][0] == "400"
    assert "'numbers': shape [3, 3] does not fit [-1, 2]" in found["wrong shape"][1]
    assert "'halves': datatype must be 'FP16'" in found["wrong type"][1]


def test_tritons_grpc_client(python: Path, server: tuple[str, str]) -> None:
    found = run(python, "triton_grpc.py", server[1])
    assert found["live"]
    assert found["ready"]
    assert found["model ready"]
    assert found["server"] == "tracklayer"
    assert found["inputs"][2] == ["numbers", "FP32", [-1, 2]]
    assert found["infer"] == SENT
    assert found["id"] == "r1"
    assert found["asynchronous"] == [SENT["numbers"]] * 5
    assert found["missing input"] == ["StatusCode.INVALID_ARGUMENT", "inputs: 'words' missing"]
    assert found["wrong shape"][0] == "StatusCode.INVALID_ARGUMENT"
    assert "'numbers': shape [3, 3] does not fit [-1, 2]" in found["wrong shape"][1]
    assert found["no such model"] == ["StatusCode.NOT_FOUND", "no model 'z' here; models: m"]


def test_kserves_clients(python: Path, server: tuple[str, str]) -> None:
    found = run(python, "kserve_clients.py", f"http://{server[0]}", server[1])
    for way in ("http", "grpc"):
        assert found[way]["live"]
        assert found[way]["ready"]
        assert found[way]["model ready"]
        assert "'numbers': shape [3, 3] does not fit [-1, 2]" in found[way]["wrong shape"][1]
    assert found["http"]["all in bytes"] == SENT
    assert found["http"]["mixed"] == SENT
    assert found["http"]["mixed: id"] == "r1"
    assert found["http"]["wrong shape"][0] == "400"
    assert found["grpc"]["infer"] == SENT
    assert found["grpc"]["id"] == "r1"
    assert found["grpc"]["wrong shape"][0] == "INVALID_ARGUMENT"


def test_mlflows_client(server: tuple[str, str]) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, port = server[0].split(":")
    client = ScoringServerClient(host, port)
    client.wait_server_ready(timeout=5)
    assert client.get_version()
    columns = SENT | {"numbers": [[1, 2], [3, 4], [5.5, -6]]}
    frame = pd.DataFrame(columns)
    answer = client.invoke(frame)
    assert answer["predictions"] == {f"{name}_": values for name, values in columns.items()}
    assert answer.get_predictions()["numbers_"].tolist() == columns["numbers"]
    with pytest.raises(Exception, match=r"error code 400.+several inputs, name them: words"):
        client.invoke(frame.rename(columns={"words": "z"}))
    with pytest.raises(Exception, match=r"error code 400.+several inputs, name them: words"):
        client.invoke(np.zeros((2, 2)))
    with pytest.raises(Exception, match="params: this model takes no parameters"):
        client.invoke(frame, params={"temperature": 1})

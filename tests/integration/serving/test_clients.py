"""Clients that others wrote, in an environment of their own: they pin older packages than ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Never

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tracklayer.errors import TracklayerError
from tracklayer.gateway import GatewayClient
from tracklayer.packages import prepare
from tracklayer.sockets import grpc_beside

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
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that gives back what it gets."""
    folder = tmp_path_factory.mktemp("echo")
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in ECHO.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_", *kind) for name, kind in ECHO.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_"]) for name in ECHO]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(echoing: Path) -> Iterator[tuple[str, str]]:
    """Addresses of HTTP and gRPC of a server of it."""
    command = [
        *(sys.executable, "-m", "tracklayer.serving", "--model", str(echoing)),
        *("--name", "m", "--version", "3", "--port", "0", "--grpc", "127.0.0.1:0"),
    ]
    with _told(command, 2) as (http, grpc):
        yield http.removeprefix("http://"), grpc


@pytest.fixture(scope="module")
def gateway(echoing: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of gRPC of a gateway, with such a server behind it as version 3 of a project."""
    folder = tmp_path_factory.mktemp("gateway")
    socket, admin = folder / "3.sock", folder / "admin.sock"
    module = [sys.executable, "-m"]
    server = [
        *(*module, "tracklayer.serving", "--model", str(echoing), "--name", "m", "--version", "3"),
        *("--socket", str(socket), "--grpc", f"unix:{grpc_beside(socket)}"),
    ]
    front = [
        *(*module, "tracklayer.gateway", "--port", "0", "--grpc-port", "0", "--admin", str(admin)),
        *("--routes", str(folder / "routes.json"), "--state", str(folder / "state")),
    ]
    with _told(server, 2), _told(front, 2) as (_, address):
        GatewayClient(admin).switch("m", 3, [socket])
        yield address


@contextmanager
def _told(command: list[str], lines: int) -> Iterator[list[str]]:
    """A process until the block ends, and what its first lines end with."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        found = [process.stdout.readline() for _ in range(lines)]
        assert all(found), process.communicate()[1]
        try:
            yield [line.split()[-1] for line in found]
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


@pytest.mark.parametrize("way", ["alone", "behind the gateway"])
def test_tritons_grpc_client(python: Path, server: tuple[str, str], gateway: str, way: str) -> None:
    found = run(python, "triton_grpc.py", server[1] if way == "alone" else gateway)
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
    missing = {"alone": "no model 'z' here; models: m"}
    missing["behind the gateway"] = "no project 'z' here; there are: m"
    assert found["no such model"] == ["StatusCode.NOT_FOUND", missing[way]]


@pytest.mark.parametrize("way", ["alone", "behind the gateway"])
def test_kserves_clients(python: Path, server: tuple[str, str], gateway: str, way: str) -> None:
    address = server[1] if way == "alone" else gateway
    found = run(python, "kserve_clients.py", f"http://{server[0]}", address)
    for protocol in ("http", "grpc"):
        assert found[protocol]["live"]
        assert found[protocol]["ready"]
        assert found[protocol]["model ready"]
        refusal = found[protocol]["wrong shape"][1]
        assert "'numbers': shape [3, 3] does not fit [-1, 2]" in refusal
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


def test_mlflows_deployment_client(server: tuple[str, str]) -> None:
    from mlflow.deployments import get_deploy_client

    client: Any = get_deploy_client(f"http://{server[0]}")
    [listed] = client.list_endpoints()
    assert listed.name == "m"
    assert listed.endpoint_url == f"http://{server[0]}/endpoints/m/invocations"
    assert client.get_endpoint("m") == listed
    columns = SENT | {"numbers": [[1, 2], [3, 4], [5.5, -6]]}
    answer = client.predict(endpoint="m", inputs={"inputs": columns})
    assert answer == {"predictions": {f"{name}_": values for name, values in columns.items()}}
    with pytest.raises(Exception, match=r"400.+inputs: no input 'z'"):
        client.predict(endpoint="m", inputs={"inputs": {"z": [1]}})
    with pytest.raises(Exception, match=r"404.+nothing at"):
        client.predict(endpoint="z", inputs={"inputs": columns})


def test_sagemakers_client(server: tuple[str, str]) -> None:
    import boto3
    from botocore.exceptions import ClientError

    client: Any = boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://{server[0]}",
        region_name="none",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )
    rows = {"words": ["a"], "halves": [0.5], "numbers": [[1, 2]], "flags": [True]}

    def invoke(document: object) -> Any:
        body = json.dumps(document).encode()
        answer = client.invoke_endpoint(
            EndpointName="m", ContentType="application/json", Accept="application/json", Body=body
        )
        return json.loads(answer["Body"].read())

    assert invoke({"inputs": rows})["predictions"]["numbers_"] == [[1, 2]]
    with pytest.raises(ClientError, match="400"):
        invoke({"inputs": {"z": [1]}})

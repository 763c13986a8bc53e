"""The servers that people would pick instead, around the same ONNX model.

Each is in an environment of its own, with its documented defaults, one worker, and onnxruntime
with one thread, as its documentation has a model of one's own: see ``servers``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from bench.endpoints import Server, Task
from bench.peers import python_of
from bench.processes import clean_environment, free_ports, timed

_SERVERS = Path(__file__).parent / "servers"
_INFER = "v2/models/m/infer"


def _mlserver(task: Task, folder: Path) -> Server:
    """In its own process: ``parallel_workers`` 0."""
    python = python_of("mlserver")
    port, grpc, metrics = free_ports(3)
    folder.mkdir()
    shutil.copy2(_SERVERS / "mlserver_onnx.py", folder)
    ports = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "m",
        "implementation": "mlserver_onnx.OnnxModel",
        "parameters": {"uri": str(task.file)},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return Server(
        [[str(python.parent / "mlserver"), "start", str(folder)]],
        _url(port, _INFER),
        task.open_inference,
        task.expected,
        folder=folder,
    )


def _kserve(task: Task, folder: Path) -> Server:
    python = python_of("kserve")
    port, grpc = free_ports(2)
    folder.mkdir()
    options = ("--model_name", "m", "--http_port", str(port), "--grpc_port", str(grpc))
    program = str(_SERVERS / "kserve_onnx.py")
    return Server(
        [[str(python), program, "--model_file", str(task.file), *options]],
        _url(port, _INFER),
        task.open_inference,
        task.expected,
        folder=folder,
    )


def _mlflow(task: Task, folder: Path) -> Server:
    """In the environment that it was installed into: another one would take longer to start."""
    python = python_of("mlflow")
    (port,) = free_ports(1)
    folder.mkdir()
    model = folder / "model"
    save = [str(python), str(_SERVERS / "mlflow_save.py"), str(task.file), str(model)]
    timed(save, env=clean_environment(), cwd=folder, log=folder / "save.log")
    serve = ("models", "serve", "--model-uri", str(model), "--env-manager", "local")
    options = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    return Server(
        [[str(python.parent / "mlflow"), *serve, *options]],
        _url(port, "invocations"),
        orjson.dumps({"inputs": task.lists}),
        task.expected,
        numbers=_predictions,
        environment=_path(python),
        folder=folder,
    )


def _bentoml(task: Task, folder: Path) -> Server:
    python = python_of("bentoml")
    (port,) = free_ports(1)
    folder.mkdir()
    shutil.copy2(_SERVERS / "bentoml_onnx.py", folder)
    serve = ("serve", "bentoml_onnx:Onnx", "--host", "127.0.0.1", "--port", str(port))
    home = {"MODEL": str(task.file), "BENTOML_HOME": str(folder / "home")}
    return Server(
        [[str(python.parent / "bentoml"), *serve]],
        _url(port, "predict" if "x" in task.inputs else "embed"),
        orjson.dumps(task.lists),
        task.expected,
        numbers=lambda document: document,
        environment={**_path(python), **home, "BENTOML_DO_NOT_TRACK": "True"},
        folder=folder,
    )


def _litserve(task: Task, folder: Path) -> Server:
    python = python_of("litserve")
    (port,) = free_ports(1)
    folder.mkdir()
    return Server(
        [[str(python), str(_SERVERS / "litserve_onnx.py"), str(task.file), str(port)]],
        _url(port, "predict"),
        orjson.dumps(task.lists),
        task.expected,
        numbers=lambda document: document["output"],
        folder=folder,
    )


FRAMEWORKS: dict[str, Callable[[Task, Path], Server]] = {
    "MLServer": _mlserver,
    "KServe ModelServer": _kserve,
    "mlflow models serve": _mlflow,
    "BentoML": _bentoml,
    "LitServe": _litserve,
}
"""Name -> from a task and a folder that is to be made, to the server of it.

It raises :class:`bench.measure.NotMeasuredError` if the framework cannot be installed."""


def _predictions(document: Mapping[str, Any]) -> Any:
    found = document["predictions"]
    return next(iter(found.values())) if isinstance(found, dict) else found


def _path(python: Path) -> dict[str, str]:
    """Programs that it starts by their names are those of its environment."""
    return {"PATH": os.pathsep.join((str(python.parent), os.environ.get("PATH", os.defpath)))}


def _url(port: int, path: str) -> str:
    return f"http://127.0.0.1:{port}/{path}"

"""What people do with MLflow's own client: ``unchanged_client.py <folder> <text in all of it>``."""

import sys
import tempfile
from pathlib import Path

import mlflow  # noqa: TID253 - a person's script
import numpy as np
import onnx
import pytest
from mlflow.exceptions import MlflowException  # noqa: TID253
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: TID253
from PIL import Image

folder, marker = Path(sys.argv[1]), sys.argv[2]
mlflow.log_artifact(folder / "a note.txt")
mlflow.log_artifact(folder / "a note.txt", "notes/today")
mlflow.log_artifacts(folder, "all of it")
mlflow.log_text(marker, "text.txt")
mlflow.log_dict({"said": marker}, "d/dict.json")
mlflow.log_image(Image.new("RGB", (4, 4), "red"), "red.png")

run = mlflow.active_run().info.run_id
client = mlflow.MlflowClient()


def listed(path=None):
    return [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run, path)]


size = (folder / "a note.txt").stat().st_size
assert listed("notes") == [("notes/today", True, None)], listed("notes")
assert listed("notes/today") == [("notes/today/a note.txt", False, size)]
assert [name for name, *_ in listed()] == [
    "a note.txt",
    "all of it",
    "d",
    "model",
    "notes",
    "red.png",
    "text.txt",
], listed()
assert listed("text.txt") == listed("nothing") == []


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


uri = f"runs:/{run}/"
there = Path(mlflow.artifacts.download_artifacts(uri + "all of it", dst_path=tempfile.mkdtemp()))
assert contents(there) == contents(folder)
assert mlflow.artifacts.load_text(uri + "text.txt") == marker
assert mlflow.artifacts.load_dict(uri + "d/dict.json") == {"said": marker}
assert mlflow.artifacts.load_image(uri + "red.png").size == (4, 4)
model = Path(mlflow.artifacts.download_artifacts("models:/fudge@champion"))
assert contents(model) == contents(folder)
one = mlflow.artifacts.download_artifacts("models:/fudge/1/deep/er/ünï ç (1).bin")
assert Path(one).read_bytes() == (folder / "deep/er/ünï ç (1).bin").read_bytes()

mlflow.set_experiment(experiment_id=mlflow.get_run(run).info.experiment_id)


def value(name):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1])


double = onnx.helper.make_node("Add", ["x", "x"], ["y"])
graph = onnx.helper.make_graph([double], "g", [value("x")], [value("y")])
opset = [onnx.helper.make_opsetid("", 17)]
model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9, doc_string=marker)
logged = mlflow.onnx.log_model(model, name="double", registered_model_name="double")
names = [file.path for file in mlflow.artifacts.list_artifacts(artifact_uri=logged.model_uri)]
assert {"MLmodel", "model.onnx"} <= set(names), names
assert mlflow.onnx.load_model("models:/double/1").doc_string == marker
loaded = mlflow.pyfunc.load_model(logged.model_uri)
assert loaded.predict(np.array([[2]], np.float32))["y"] == 4

mlflow.log_text(marker, "to/be/deleted.txt")
repository = get_artifact_repository(mlflow.get_run(run).info.artifact_uri)
repository.delete_artifacts("to/be")
assert listed("to") == []

with pytest.raises(MlflowException, match="not there"):
    mlflow.artifacts.download_artifacts(uri + "not there")

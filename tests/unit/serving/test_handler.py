"""A project's own code: what it may do wrong, and what is made of it."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracklayer.errors import ModelError
from tracklayer.serving import golden, invocations, open_inference, recognise
from tracklayer.serving.formats import load
from tracklayer.serving.http import Service
from tracklayer.serving.model import Model, RequestError

Write = Callable[..., Path]

SIGNATURE = """
signature = {
    "inputs": {"length": ("FP64", ["batch"]), "unit": ("BYTES", ["batch"])},
    "outputs": {"area": ("FP32", ["batch"]), "unit": ("BYTES", ["batch"])},
}
"""
SQUARES = """
import json
import numpy as np

FACTOR = 0.0

def load(folder):
    global FACTOR
    FACTOR = json.loads((folder / "factor.json").read_text())

def predict(inputs):
    return {
        "area": FACTOR * inputs["length"] ** 2,
        "unit": [f"{unit}²" for unit in inputs["unit"]],
    }
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(code: str = SQUARES + SIGNATURE, **files: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "factor.json").write_text("2")
        (folder / "handler.py").write_text(textwrap.dedent(code))
        for name, content in files.items():
            suffix = ".json" if isinstance(content, dict) else ".py"
            text = json.dumps(content) if isinstance(content, dict) else textwrap.dedent(content)
            (folder / f"{name}{suffix}").write_text(text)
        return folder

    return written


def loaded(folder: Path) -> Model:
    return load(folder, allow=["code"])


def run(model: Model, **feeds: Any) -> dict[str, Any]:
    arrays = {
        name: np.array(values, dtype=object if isinstance(values[0], str) else np.float64)
        for name, values in feeds.items()
    }
    names = model.signature.output_names
    return dict(zip(names, model.run(arrays, names, model.call()), strict=True))


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_it_answers_where_the_project_allows_code(write: Write) -> None:
    folder = write()
    found = recognise(folder)
    assert (found.name, found.path, found.needs) == ("handler", folder / "handler.py", {"code"})
    model = loaded(folder)
    assert model.platform == "python_handler"
    assert [t.metadata() for t in model.signature.inputs] == [
        {"name": "length", "datatype": "FP64", "shape": [-1]},
        {"name": "unit", "datatype": "BYTES", "shape": [-1]},
    ]
    answer = run(model, length=[1, 3], unit=["m", "ft"])
    assert answer["area"].dtype == np.float32
    assert answer["area"].tolist() == [2, 18]
    assert answer["unit"].tolist() == ["m²", "ft²"]


def test_nothing_of_it_runs_unless_that_is_allowed(write: Write, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n" + SQUARES + SIGNATURE
    folder = write(code)
    for refuse in (load, golden):
        with pytest.raises(ModelError, match=r"handler\.py is Python code") as refused:
            refuse(folder)
        assert "deploy: {allow: [code]}" in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_a_model_beside_it_is_the_handlers(write: Write, linear: Path) -> None:
    folder = write()
    (linear / "model.onnx").rename(folder / "model.onnx")
    assert recognise(folder).name == "handler"


@pytest.mark.parametrize(
    "code", ["def predict(inputs): ...", "class EndpointHandler:\n    def load(self): ...", ""]
)
def test_another_file_of_this_name_is_none(code: str, linear: Path) -> None:
    (linear / "handler.py").write_text(code)
    assert recognise(linear).name == "onnx"


def test_one_that_lacks_a_function_is_told_so(write: Write) -> None:
    with pytest.raises(ModelError, match="no known model") as caught:
        recognise(write("def predict(inputs): ..."))
    assert "`def load(folder)` and `def predict(inputs)`" in (caught.value.hint or "")


def test_it_may_import_what_lies_beside_it(write: Write) -> None:
    code = "from shapes import predict\ndef load(folder): ...\ndef predict(inputs):\n"
    code += "    return shapes_predict(inputs)\n"
    code = code.replace("import predict", "import predict as shapes_predict") + SIGNATURE
    first = "def predict(inputs): return {'area': inputs['length'], 'unit': inputs['unit']}"
    one = loaded(write(code, shapes=first))
    two = loaded(write(code, shapes=first.replace("['length']", "['length'] * 0", 1)))
    assert run(one, length=[5], unit=["m"])["area"].tolist() == [5]
    assert run(two, length=[5], unit=["m"])["area"].tolist() == [0]
    assert not {"shapes", "handler"} & sys.modules.keys()
    assert not [path for path in sys.path if path.endswith("/model")]


def test_without_a_signature_the_golden_request_is_one(write: Write) -> None:
    inputs = [tensor("length", "FP64", [1], [3.0]), tensor("unit", "BYTES", [1], ["m"])]
    folder = write(SQUARES, golden={"inputs": inputs})
    model = loaded(folder)
    assert [t.dims for t in model.signature.inputs] == [("batch",), ("batch",)]
    described = [(t.name, t.datatype, t.shape) for t in model.signature.outputs]
    assert described == [("area", "FP64", [-1]), ("unit", "BYTES", [-1])]
    assert run(model, length=[1, 2], unit=["m", "m"])["area"].tolist() == [2, 8]
    made = golden(folder, allow=["code"])
    assert made.response["outputs"][0]["data"] == [18]


def test_without_either_it_is_refused(write: Write) -> None:
    with pytest.raises(ModelError, match=r"handler.py has no signature\n  Write signature = "):
        loaded(write(SQUARES))


def test_its_golden_request_is_made_in_a_process_of_its_own(write: Write) -> None:
    code = """
    import os
    print("this is not the answer")
    def load(folder): ...
    def predict(inputs):
        seen = ",".join(sorted(os.environ))
        return {"pid": [os.getpid()], "seen": [seen]}
    signature = {
        "inputs": {"x": ("FP32", [1])},
        "outputs": {"pid": ("INT64", [1]), "seen": ("BYTES", [1])},
    }
    """
    folder = write(code)
    os.environ["TRACKLAYER_STORE_KEY"] = "env:NOTHING"
    try:
        made = golden(folder, allow=["code"])
    finally:
        del os.environ["TRACKLAYER_STORE_KEY"]
    by_name = {output["name"]: output["data"][0] for output in made.response["outputs"]}
    assert by_name["pid"] != os.getpid()
    assert "PATH" in by_name["seen"]
    assert "TRACKLAYER" not in by_name["seen"]


def test_a_process_that_ends_is_said(write: Write) -> None:
    folder = write("import os\ndef load(folder): os._exit(7)\ndef predict(inputs): ...\n")
    with pytest.raises(ModelError, match="ended its process, with exit code 7"):
        golden(folder, allow=["code"])


def test_what_fails_in_that_process_is_said(write: Write) -> None:
    folder = write("def load(folder): raise KeyError('no-such-file')\ndef predict(inputs): ...\n")
    with pytest.raises(ModelError, match=r"handler\.py cannot be loaded: KeyError: 'no-such-file'"):
        golden(folder, allow=["code"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def load(folder): ...\ndef predict(inputs): ...\nx = (", "SyntaxError"),
        ("import no_such_module\ndef load(f): ...\ndef predict(i): ...", "ModuleNotFoundError"),
        ("def load(folder): exit(3)\ndef predict(inputs): ...", "SystemExit: 3"),
        ("def load(): ...\ndef predict(inputs): ...", "TypeError: load()"),
    ],
)
def test_code_that_cannot_be_loaded_is_said(write: Write, code: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        loaded(write(code))
    assert f"handler.py cannot be loaded: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("3", "signature is wrong"),
        ("{'inputs': {'x': ('FP32', [1])}}", "signature is wrong: 'outputs'"),
        ("{'inputs': {}, 'outputs': {}}", "has no inputs or no outputs"),
        ("{'inputs': {'x': ('FP31', [1])}, 'outputs': {}}", "'x' is of the type 'FP31'; types: "),
        ("{'inputs': {'x': ('FP32', [-2])}, 'outputs': {}}", "'x' has an axis -2"),
        ("{'inputs': {'x': ('FP32', [None])}, 'outputs': {}}", "'x' has an axis None"),
        ("{'inputs': {'x': 'FP32'}, 'outputs': {}}", "signature is wrong"),
    ],
)
def test_a_wrong_signature_is_said(write: Write, declared: str, message: str) -> None:
    code = f"def load(folder): ...\ndef predict(inputs): ...\nsignature = {declared}"
    with pytest.raises(ModelError) as caught:
        loaded(write(code))
    assert message in str(caught.value)
    assert '"outputs": {"y"' in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("None", "predict of handler.py returned a NoneType, not a dict of arrays"),
        ("{'area': inputs['length']}", "did not return unit, but area"),
        ("{}", "did not return area, unit, but nothing"),
        ("{'area': ['a'], 'unit': ['m']}", "returned 'area' as list, not FP32"),
        ("{'area': [1 + 2j], 'unit': ['m']}", "returned 'area' as list, not FP32"),
        ("{'area': [[1], [2, 3]], 'unit': ['m']}", "returned 'area' as list, not FP32"),
        ("{'area': [[1.0]], 'unit': ['m']}", "returned 'area' of shape [1, 1], not [-1]"),
        ("{'area': [1.0], 'unit': [3]}", "returned 'unit' with a int, not a str"),
        ("{'area': [1.0], 'unit': [None]}", "returned 'unit' with a NoneType, not a str"),
        ("1 / 0", "the model failed on this request: ZeroDivisionError in handler.py"),
        ("exit()", "the model failed on this request: SystemExit in handler.py"),
    ],
)
def test_a_wrong_answer_fails_that_request(
    write: Write, answer: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"def load(folder): ...\ndef predict(inputs): return {answer}\n" + SIGNATURE
    model = loaded(write(code))
    with pytest.raises(RequestError) as failed:
        run(model, length=[1], unit=["m"])
    assert failed.value.status == 500
    assert message in failed.value.message
    assert "Traceback" not in failed.value.message
    assert "handler.py" in caplog.text


def test_it_is_asked_one_request_at_a_time(write: Write) -> None:
    code = """
    import time
    inside = 0
    def load(folder): ...
    def predict(inputs):
        global inside
        inside += 1
        time.sleep(0.01)
        found, inside = inside, inside - 1
        return {"most": [found]}
    signature = {"inputs": {"x": ("FP64", [-1])}, "outputs": {"most": ("INT64", [1])}}
    """
    model = loaded(write(code))
    found: list[int] = []
    ask = lambda: found.append(run(model, x=[1.0])["most"].tolist()[0])  # noqa: E731 - short
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 5


IN_PLACE = """
def load(folder):
    pass

def predict(inputs):
    x = inputs["x"]
    x -= 1
    return {"y": x.T}

signature = {"inputs": {"x": ("FP32", ["n", "m"])}, "outputs": {"y": ("FP32", ["m", "n"])}}
"""


def test_what_is_computed_in_place_or_turned_is_answered_by_all_protocols(write: Write) -> None:
    model = load(write(IN_PLACE), allow=["code"])
    service = Service("m", "1", model)
    data = np.arange(6, dtype=np.float32)
    head = {
        "name": "x",
        "shape": [3, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 24},
    }
    for blank in range(4):  # where the bytes lie aligned, they are not copied
        text = json.dumps({"inputs": [head]}).encode() + b" " * blank
        headers = {b"inference-header-content-length": str(len(text)).encode()}
        infer = open_inference.routes(service)["/v2/models/m/infer"].infer
        assert infer is not None
        answer = infer(text + data.tobytes(), headers, model.call())
        [output] = json.loads(answer.body)["outputs"]
        assert output["data"] == [-1, 1, 3, 0, 2, 4]
    invoke = invocations.routes(service)["/invocations"].infer
    assert invoke is not None
    body = json.dumps({"inputs": data.reshape(3, 2).tolist()}).encode()
    answer = invoke(body, {}, model.call())
    assert json.loads(answer.body) == {"predictions": [[-1, 1, 3], [0, 2, 4]]}

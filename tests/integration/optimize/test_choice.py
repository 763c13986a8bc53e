"""Real models, real candidates, each in its process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Never

import numpy as np
import onnx
import pytest

from tracklayer.errors import ModelError
from tracklayer.optimize import Budget, Choice, Row, choose, task
from tracklayer.optimize.candidates import CANDIDATES, REGISTERED
from tracklayer.optimize.network import weights
from tracklayer.optimize.timing import Timing
from tracklayer.serving import golden
from tracklayer.serving.formats import load, recognise

Optimise = Callable[..., Choice]


@pytest.fixture
def optimise(tmp_path: Path) -> Optimise:
    """``optimise(folder, *candidates)`` with few rounds."""

    def run(folder: Path, *candidates: str, **options: Any) -> Choice:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        names = (REGISTERED, *candidates) if candidates else tuple(CANDIDATES)
        return choose(folder, work, candidates=names, rounds=9, **options)

    return run


@pytest.fixture
def openvino(give_up: Callable[[str], Never]) -> None:
    """It is installed."""
    if find_spec("openvino") is None or find_spec("nncf") is None:
        give_up("openvino and nncf are not installed")


def row(found: Choice, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)


@pytest.mark.usefixtures("openvino")
def test_a_classifier_is_served_in_the_fastest_form_that_answers_alike(
    classifier: Path, optimise: Optimise
) -> None:
    lines: list[str] = []
    found = optimise(classifier, on_line=lines.append)
    assert [found_row.name for found_row in found.rows] == list(CANDIDATES)
    assert sum(found_row.chosen for found_row in found.rows) == 1
    assert row(found, REGISTERED).speedup == 1
    for name in ("onnx-int8-static", "openvino-fp32", "openvino-int8"):
        assert row(found, name).allowed, row(found, name)
        assert row(found, name).metric == "accuracy"
        assert (row(found, name).median_ms or 0) > 0
    for name in ("cuda-fp32", "tensorrt-fp16"):
        assert not row(found, name).allowed
        assert row(found, name).why.startswith("not available: ")
    assert f"{REGISTERED}: building" in lines
    best = max(r.speedup or 0 for r in found.rows if r.allowed)
    assert (found.chosen.speedup or 0) >= 0.9 * best or found.folder is None
    assert not found.note


@pytest.mark.usefixtures("openvino")
def test_what_is_chosen_is_a_model_folder_that_answers_its_golden_request(
    classifier: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prefer_faster(monkeypatch)
    found = optimise(classifier, "openvino-int8")
    assert found.folder
    assert recognise(found.folder).name == "openvino"
    assert not list(found.folder.rglob("holdout*"))
    example = golden(found.folder)
    example.check(example.response)
    served, registered = load(found.folder), load(classifier)
    assert served.signature == registered.signature
    with np.load(classifier / "holdout.npz") as held:
        rows, labels = held["pixels"], held["label"]
    [digits] = served.run({"pixels": rows}, ["digit"], served.call())
    assert np.mean(digits == labels) > 0.97


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("name", ["onnx-int8-static", "openvino-int8"])
def test_a_text_encoder_keeps_its_tokenizer(
    sentences: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _prefer_faster(monkeypatch)
    found = optimise(sentences, name)
    assert row(found, name).allowed, row(found, name)
    assert row(found, name).metric == "cosine"
    assert 0 < (row(found, name).error or 0) < 0.01
    assert found.folder
    files = {str(file.relative_to(found.folder)) for file in found.folder.rglob("*.*")}
    assert "tokenizer.json" in files
    assert "model.safetensors" not in files
    assert recognise(found.folder).name == "huggingface"
    texts = [json.loads(line)["text"] for line in (sentences / "holdout.jsonl").open()]
    text = {"text": np.array(texts, dtype=object)}
    served, registered = load(found.folder), load(sentences)
    assert served.signature == registered.signature
    [got] = served.run(text, ["embedding"], served.call())
    [wanted] = registered.run(text, ["embedding"], registered.call())
    assert not np.array_equal(got, wanted)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    assert np.mean(1 - (got * wanted).sum(1) / lengths) < 0.01


def test_without_held_out_data_nothing_is_quantised(classifier: Path, optimise: Optimise) -> None:
    (classifier / "holdout.npz").unlink()
    found = optimise(classifier, "onnx-fp32-optimized", "onnx-int8-dynamic", "onnx-int8-static")
    assert row(found, "onnx-fp32-optimized").allowed
    for name in ("onnx-int8-dynamic", "onnx-int8-static"):
        assert not row(found, name).allowed
        assert "no held-out data" in row(found, name).why
    assert "holdout.npz" in found.note


def test_a_candidate_over_the_budget_is_not_allowed(classifier: Path, optimise: Optimise) -> None:
    budget = Budget(1e-9, "relative")
    found = optimise(classifier, "onnx-int8-static", budget=budget)
    static = row(found, "onnx-int8-static")
    assert not static.allowed
    assert not static.chosen
    assert static.why == "its error is above 1e-09"
    assert static.error
    assert static.median_ms is None
    assert found.folder is None
    assert found.chosen.name == REGISTERED


def test_answers_that_change_with_the_rows_beside_them_are_not_served(
    classifier: Path, optimise: Optimise
) -> None:
    with np.load(classifier / "holdout.npz") as held:
        rows, labels = held["pixels"].copy(), held["label"]
    rows[::3] *= 9  # one bright image beside others, and the scale of all of them is another
    np.savez(classifier / "holdout.npz", pixels=rows, label=labels)
    found = optimise(classifier, "onnx-int8-dynamic")
    dynamic = row(found, "onnx-int8-dynamic")
    assert not dynamic.allowed
    assert dynamic.why.endswith("for a row changes with the rows beside it")


def test_a_candidate_that_crashes_is_a_row(
    classifier: Path, optimise: Optimise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process of a candidate reads the table anew, so that it is a library that crashes there.
    crash = tmp_path / "libs"
    crash.mkdir()
    (crash / "openvino.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(crash))
    found = optimise(classifier, "openvino-fp32")
    assert row(found, "openvino-fp32").why == "crashed: SIGSEGV"
    assert found.chosen.name == REGISTERED


def test_a_candidate_that_takes_too_long_is_a_row(
    classifier: Path, optimise: Optimise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "libs"
    slow.mkdir()
    (slow / "openvino.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(slow))
    monkeypatch.setattr(task, "_BUILD", 8.0)
    found = optimise(classifier, "openvino-fp32")
    assert row(found, "openvino-fp32").why == "took longer than 8 s"


def test_what_is_not_installed_is_named(
    classifier: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = CANDIDATES["openvino-int8"]
    monkeypatch.setitem(CANDIDATES, known.name, replace(known, needs=("no_such_library",)))
    found = optimise(classifier, "openvino-int8")
    why = row(found, "openvino-int8").why
    assert why.startswith("not available: no_such_library not installed: pip install")


ACCELERATED = """
import onnxruntime

PLAIN, CPU = onnxruntime.InferenceSession, ["CPUExecutionProvider"]

def opened(file, options=None, providers=CPU, **more):
    session = PLAIN(file, options, providers=CPU)
    names = [each if isinstance(each, str) else each[0] for each in providers]
    session.get_providers = lambda: names
    if "TensorrtExecutionProvider" in names:
        raise RuntimeError("no CUDA-capable device is detected")
    return session

onnxruntime.get_available_providers = lambda: [
    "TensorrtExecutionProvider", "CUDAExecutionProvider", *CPU
]
onnxruntime.InferenceSession = opened
"""


def test_a_form_for_an_accelerator_is_served_there_or_not_at_all(
    classifier: Path, optimise: Optimise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor computes in place of the accelerator, which is not here; TensorRT fails."""
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "sitecustomize.py").write_text(ACCELERATED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libs"))
    names = "cuda-fp32", "tensorrt-fp16"
    for name in names:  # what this process has to say: it is there
        monkeypatch.setitem(CANDIDATES, name, replace(CANDIDATES[name], provider=""))
    _prefer_faster(monkeypatch)
    found = optimise(classifier, *names)
    assert found.chosen.name == "cuda-fp32", found.rows
    assert found.chosen.metric == "accuracy"
    assert "no CUDA-capable device is detected" in row(found, "tensorrt-fp16").why
    assert found.folder
    graph = onnx.load(found.folder / "model.onnx")
    assert [entry.value for entry in graph.metadata_props] == ["CUDAExecutionProvider"]
    with pytest.raises(ModelError, match="has no CUDAExecutionProvider"):
        load(found.folder)


def test_a_model_without_a_graph_is_served_as_it_is(
    classifier: Path, optimise: Optimise, openvino: None, tmp_path: Path
) -> None:
    import openvino as ov

    folder = tmp_path / "ir"
    folder.mkdir()
    ov.save_model(ov.Core().read_model(classifier / "model.onnx"), folder / "model.xml")
    found = optimise(folder)
    assert found.folder is None
    assert "format openvino" in found.note
    assert [r.chosen for r in found.rows] == [True]


def test_too_few_rows_are_named(classifier: Path, optimise: Optimise) -> None:
    with np.load(classifier / "holdout.npz") as held:
        rows, labels = held["pixels"][:40], held["label"][:40]
    np.savez(classifier / "holdout.npz", pixels=rows, label=labels)
    found = optimise(classifier, "onnx-int8-static")
    assert found.note.startswith(
        "The error is measured on 20 rows only: too few to tell one of 0.01"
    )
    assert "at least 200 rows" in found.note


@pytest.mark.parametrize(
    ("optimised", "static", "chosen"),
    [
        (1.2, 3.0, REGISTERED),  # all are slower
        (0.99, 1.0, REGISTERED),  # by less than the noise
        (0.7, 3.0, "onnx-fp32-optimized"),
        (0.7, 0.5, "onnx-int8-static"),  # the fastest
    ],
)
def test_nothing_slower_than_fp32_is_served_and_the_fastest_is(
    classifier: Path,
    optimise: Optimise,
    monkeypatch: pytest.MonkeyPatch,
    optimised: float,
    static: float,
    chosen: str,
) -> None:
    """The candidates are real, and take as long as it is said here."""
    took = {REGISTERED: 1.0, "onnx-fp32-optimized": optimised, "onnx-int8-static": static}

    def interleaved(passes: Any, *, rounds: int) -> dict[str, Timing]:
        assert passes.keys() == took.keys()
        return {name: Timing([seconds] * rounds, [seconds]) for name, seconds in took.items()}

    monkeypatch.setattr(task.timing, "interleaved", interleaved)
    found = optimise(classifier, "onnx-fp32-optimized", "onnx-int8-static")
    assert found.chosen.name == chosen
    assert (found.folder is None) == (chosen == REGISTERED)
    for name, seconds in took.items():
        assert row(found, name).speedup == pytest.approx(1 / seconds)


def test_held_out_data_for_another_model_is_refused(classifier: Path, optimise: Optimise) -> None:
    np.savez(classifier / "holdout.npz", wrong=np.zeros((10, 2)))
    with pytest.raises(ModelError, match="has wrong, and the model takes pixels"):
        optimise(classifier)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([("Log", {})], "not all finite numbers"),
        ([("Softmax", {"axis": 0})], "its own y for a row changes with the rows beside it"),
    ],
)
def test_a_model_that_cannot_be_a_measure_is_served_as_it_is(
    optimise: Optimise, tmp_path: Path, nodes: Any, why: str
) -> None:
    [(kind, attributes)] = nodes
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, ["x"], ["y"], **attributes)],
        "graph",
        [value("x", onnx.TensorProto.FLOAT, ["batch", 4])],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    folder = tmp_path / "odd"
    folder.mkdir()
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx"
    )
    rows = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    np.savez(folder / "holdout.npz", x=rows)
    found = optimise(folder, "onnx-int8-static")
    assert (found.folder, found.chosen.name, found.chosen.allowed) == (None, REGISTERED, True)
    assert why in found.note
    assert row(found, "onnx-int8-static").why.startswith("not tried: ")


def test_labels_that_the_model_knows_nothing_of_are_left_out(
    classifier: Path, optimise: Optimise
) -> None:
    with np.load(classifier / "holdout.npz") as held:
        rows, labels = held["pixels"], held["label"]
    np.savez(classifier / "holdout.npz", pixels=rows, label=labels + 1)  # from 1, not from 0
    found = optimise(classifier, "onnx-int8-static")
    assert "`label` is left out: the registered model is right for 0% of the rows" in found.note
    assert row(found, "onnx-int8-static").metric != "accuracy"
    np.savez(classifier / "holdout.npz", pixels=rows, label=labels + 0.5)
    assert "no output of the model is a class" in optimise(classifier, "onnx-int8-static").note
    with pytest.raises(ModelError, match="no output of the model is a class") as said:
        optimise(classifier, "onnx-int8-static", budget=Budget(0.01, "accuracy"))
    assert "Leave `metric` out" in str(said.value)


def test_a_slow_model_is_asked_fewer_rows(
    classifier: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_PATIENCE", 1e-9)
    found = optimise(classifier, "onnx-fp32-optimized")
    assert "only 1 rows are asked" in found.note
    assert row(found, "onnx-fp32-optimized").allowed


def test_a_model_that_is_too_slow_to_measure_is_served_as_it_is(
    classifier: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_BUILD", 0.01)
    found = optimise(classifier, "onnx-fp32-optimized")
    assert (found.chosen.name, found.folder) == (REGISTERED, None)
    assert "it took longer than 0.01 s" in found.note
    assert row(found, "onnx-fp32-optimized").why.startswith("not tried: ")


def test_weights_beside_the_graph_are_taken_by_their_name(
    classifier: Path, optimise: Optimise, tmp_path: Path
) -> None:
    model = onnx.load(classifier / "model.onnx")
    onnx.save(
        model,
        classifier / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    found = optimise(classifier, "onnx-fp32-optimized", "onnx-int8-static")
    assert row(found, "onnx-fp32-optimized").allowed, row(found, "onnx-fp32-optimized")
    assert row(found, "onnx-int8-static").allowed, row(found, "onnx-int8-static")
    assert weights(classifier / "model.onnx").keys() == {"weights.bin"}
    (tmp_path / "copy").mkdir()
    CANDIDATES[REGISTERED].build(classifier / "model.onnx", tmp_path / "copy", [], {})
    load(tmp_path / "copy")


def _prefer_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models on a busy machine are no race: the candidate wins it."""
    monkeypatch.setattr(task.timing, "is_faster", lambda *_: True)

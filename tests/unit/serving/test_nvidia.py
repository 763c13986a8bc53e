"""Models that were made for an accelerator. There is none here: onnxruntime's providers for it are
either missing, as in its package for processors, or looked at from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tracklayer.errors import ModelError
from tracklayer.serving import nvidia
from tracklayer.serving.formats import load

SPANS = {"x": [[1, 4], [32, 4]]}


@pytest.fixture
def made_for(linear: Path) -> Path:
    nvidia.mark(linear / "model.onnx", nvidia.TENSORRT, SPANS)
    return linear


class Accelerated:
    """The sessions that are asked for with a provider of NVIDIA's, computed by the processor.

    :param starts: the providers that start; the others are left out, as onnxruntime does it.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *starts: str) -> None:
        self.starts = starts
        self.options: dict[str, dict[str, str]] = {}
        self.fallback: object = None
        self.asked: list[dict[str, Any]] = []
        import onnxruntime as ort

        self.session: Any = ort.InferenceSession
        known = [nvidia.TENSORRT, nvidia.CUDA, "CPUExecutionProvider"]
        patch.setattr(ort, "get_available_providers", lambda: known)
        patch.setattr(ort, "InferenceSession", self.open)

    def open(self, file: Any, options: Any, providers: list[Any], **more: Any) -> Any:
        plain = self.session(file, options, providers=["CPUExecutionProvider"])
        if providers == ["CPUExecutionProvider"]:
            return plain
        self.options = dict(each for each in providers if isinstance(each, tuple))
        self.fallback = more["enable_fallback"]
        if "fails" in self.starts:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        began = [name for name in self.options if name in self.starts]
        run = plain.run

        def asked(names: Any, feeds: dict[str, Any], call: Any = None) -> Any:
            self.asked.append(feeds)
            return run(names, feeds, call)

        plain.run = asked
        plain.get_providers = lambda: [*began, "CPUExecutionProvider"]
        return plain


def test_what_was_made_for_an_accelerator_is_not_answered_by_the_processor(made_for: Path) -> None:
    with pytest.raises(ModelError, match="has no TensorrtExecutionProvider") as caught:
        load(made_for)
    assert "onnxruntime-gpu" in (caught.value.hint or "")


def test_a_mark_changes_nothing_else(linear: Path) -> None:
    before = onnx.load(linear / "model.onnx")
    nvidia.mark(linear / "model.onnx", nvidia.CUDA)
    nvidia.mark(linear / "model.onnx", nvidia.CUDA)
    after = onnx.load(linear / "model.onnx")
    [entry] = after.metadata_props
    assert (entry.key, entry.value) == ("tracklayer.provider", "CUDAExecutionProvider")
    assert after.graph == before.graph


def test_external_data_stays_where_it_is(linear: Path) -> None:
    model = onnx.load(linear / "model.onnx")
    file = linear / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="w", size_threshold=0)
    nvidia.mark(file, nvidia.CUDA)
    assert file.stat().st_size < 1000
    assert onnx.load(file).graph.initializer[0].raw_data


def test_tensorrt_gets_its_options_and_is_asked_while_its_files_are_there(
    made_for: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Accelerated(monkeypatch, nvidia.TENSORRT, nvidia.CUDA)
    model = load(made_for)
    assert here.fallback == 0
    assert list(here.options) == [nvidia.TENSORRT, nvidia.CUDA]  # what one does not, the next does
    options = here.options[nvidia.TENSORRT]
    assert options["trt_fp16_enable"] == options["trt_engine_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == str(made_for.resolve())
    assert here.options[nvidia.CUDA]["use_tf32"] == "0"
    assert [feeds["x"].shape for feeds in here.asked] == [(1, 4), (32, 4)]
    # It waits for the accelerator: not in the event loop.
    assert not getattr(model, "interruptible", False)
    x = np.ones((2, 4), dtype=np.float32)
    [y] = model.run({"x": x}, ["y"], model.call())
    assert y.shape == (2, 3)


def test_cuda_is_not_asked_before_its_time(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia.mark(linear / "model.onnx", nvidia.CUDA)
    here = Accelerated(monkeypatch, nvidia.CUDA)
    load(linear)
    assert list(here.options) == [nvidia.CUDA]
    assert here.asked == []


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ([], "no accelerator, or a library of NVIDIA's is missing"),
        ([nvidia.CUDA], "no accelerator, or a library of NVIDIA's is missing"),
        (["fails"], "no CUDA-capable device is detected"),
    ],
    ids=["none is left", "only CUDA is left", "it fails"],
)
def test_a_provider_that_does_not_start_is_said(
    made_for: Path, monkeypatch: pytest.MonkeyPatch, starts: list[str], said: str
) -> None:
    Accelerated(monkeypatch, *starts)
    with pytest.raises(ModelError, match="TensorrtExecutionProvider does not start here") as caught:
        load(made_for)
    assert said in caught.value.message


def test_another_provider_is_not_served(linear: Path) -> None:
    nvidia.mark(linear / "model.onnx", "DmlExecutionProvider")
    with pytest.raises(ModelError, match="made for 'DmlExecutionProvider', which is not served"):
        load(linear)


def test_the_shapes_among_some_feeds(linear: Path, addition: Path) -> None:
    signature = load(linear).signature
    feeds = [{"x": np.zeros((size, 4))} for size in (3, 5)]
    assert nvidia.spanned(feeds, signature, 32) == SPANS
    assert json.loads(json.dumps(nvidia.spanned(feeds[:1], signature, 2))) == {
        "x": [[1, 4], [3, 4]]
    }

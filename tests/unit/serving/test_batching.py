from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from tracklayer.serving.batching import Batched, joinable, pays
from tracklayer.serving.formats import load
from tracklayer.serving.model import Array, Call, Model, RequestError

Save = Callable[..., Path]


class Held:
    """A model whose first run waits until it is let go; it notes how many rows each run had."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.platform, self.signature, self.call = model.platform, model.signature, model.call
        self.rows: list[int] = []
        self.go = threading.Event()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], call: Call) -> list[Array]:
        self.rows.append(len(next(iter(feeds.values()))))
        if len(self.rows) == 1:
            assert self.go.wait(10)
        return self.model.run(feeds, outputs, call)


def together(
    held: Held, requests: Sequence[Mapping[str, Array]], *, most: int = 32
) -> list[list[Array] | RequestError]:
    """Answers of requests that come while the first is run, in their order."""
    batched = Batched(held, slots=1, most=most, delay=0.0)
    outputs = held.signature.output_names

    def ask(feeds: Mapping[str, Array]) -> list[Array] | RequestError:
        try:
            return batched.run(feeds, outputs, batched.call())
        except RequestError as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        asked = []
        for number, feeds in enumerate(requests):
            asked.append(pool.submit(ask, feeds))
            while number and len(batched._waiting) < number:
                time.sleep(0.001)
        held.go.set()
        return [each.result(10) for each in asked]


def rows(count: int, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((count, 4)).astype(np.float32)}


def test_what_waits_is_joined_and_everyone_gets_his_own(linear: Path) -> None:
    model = load(linear)
    requests = [rows(count, seed) for seed, count in enumerate((1, 2, 1, 3, 1))]
    held = Held(model)
    answers = together(held, requests)
    assert held.rows == [1, 7]
    for feeds, answer in zip(requests, answers, strict=True):
        alone = model.run(feeds, ["y"], model.call())
        assert not isinstance(answer, RequestError)
        np.testing.assert_allclose(answer[0], alone[0], rtol=1e-5)


def test_a_run_has_a_most_of_rows(linear: Path) -> None:
    held = Held(load(linear))
    together(held, [rows(2, seed) for seed in range(6)], most=4)
    assert held.rows == [2, 4, 4, 2]


def test_other_shapes_are_not_joined(identity: Callable[[int], Path], tmp_path: Path) -> None:
    model = load(identity(TensorProto.FLOAT))
    held = Held(model)
    requests = [{"v": np.arange(n, dtype=np.float32)} for n in (3, 2, 4)]
    answers = together(held, requests)
    assert held.rows == [3, 6]
    for feeds, answer in zip(requests, answers, strict=True):
        assert not isinstance(answer, RequestError)
        np.testing.assert_array_equal(answer[0], feeds["v"])


def test_one_that_fails_fails_alone(lookup: Path) -> None:
    held = Held(load(lookup))
    wanted = [0, 1, 99, 2]
    answers = together(held, [{"i": np.array([i])} for i in wanted])
    assert held.rows == [1, 3, 1, 1, 1]
    failed = answers.pop(2)
    assert isinstance(failed, RequestError)
    assert failed.status == 400
    values = [answer[0].tolist() for answer in answers if not isinstance(answer, RequestError)]
    assert values == [[1.0], [2.0], [3.0]]


def test_one_that_nobody_waits_for_ends_and_the_others_do_not(linear: Path) -> None:
    held = Held(load(linear))
    batched = Batched(held, slots=1, most=32, delay=0.0)
    calls = [batched.call() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        asked = []
        for number, call in enumerate(calls):
            asked.append(pool.submit(batched.run, rows(1, number), ["y"], call))
            while number and len(batched._waiting) < number:
                time.sleep(0.001)
        calls[1].terminate = True
        held.go.set()
        assert asked[0].result(10)[0].shape == (1, 3)
        assert asked[2].result(10)[0].shape == (1, 3)
        with pytest.raises(RequestError):
            asked[1].result(10)


def test_a_running_batch_can_be_ended(loop: Path) -> None:
    batched = Batched(load(loop), slots=1, most=32, delay=0.0)
    call = batched.call()
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(batched.run, {"times": np.array([10**9])}, ["sum"], call)
        time.sleep(0.1)
        call.terminate = True
        with pytest.raises(RequestError):
            endless.result(10)


def test_only_models_with_one_free_first_axis_can_be_joined(
    linear: Path, addition: Path, logarithm: Path, loop: Path
) -> None:
    assert joinable(load(linear).signature)
    assert joinable(load(addition).signature)
    assert not joinable(load(logarithm).signature)
    assert not joinable(load(loop).signature)


WIDE = 3000
"""Weights that are read anew for each run: that is what company saves."""


def wide(save: Save, folder: Path, nodes: list[NodeProto]) -> Model:
    weights = np.random.default_rng(0).standard_normal((WIDE, WIDE)).astype(np.float32) / 40
    dims: list[str | int | None] = ["batch", WIDE]
    value = helper.make_tensor_value_info
    return load(
        save(
            folder,
            nodes,
            [value("x", TensorProto.FLOAT, dims)],
            [value("y", TensorProto.FLOAT, dims)],
            {"w": weights},
        )
    )


def test_it_pays_where_company_saves_time_and_changes_nothing(
    save: Save, tmp_path: Path, linear: Path
) -> None:
    feeds = {"x": np.random.default_rng(1).random((1, WIDE), dtype=np.float32)}
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert pays(wide(save, tmp_path / "product", [product]), feeds)
    # Too quick to be worth the way.
    assert not pays(load(linear), rows(1, 0))
    # Every row depends on the others.
    mixed = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=0),
    ]
    assert not pays(wide(save, tmp_path / "mixed", mixed), feeds)


def test_a_moment_in_which_the_machine_is_busy_decides_nothing(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third run takes longer than it should."""
    model = wide(save, tmp_path / "product", [helper.make_node("MatMul", ["x", "w"], ["y"])])
    run, turn = model.run, iter(range(10**6))

    def busy(*arguments: Any) -> list[Array]:
        if next(turn) % 3 == 0:
            time.sleep(0.02)
        return run(*arguments)

    monkeypatch.setattr(model, "run", busy)
    feeds = {"x": np.random.default_rng(1).random((1, WIDE), dtype=np.float32)}
    assert pays(model, feeds)

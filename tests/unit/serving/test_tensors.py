from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracklayer.serving.model import DATATYPES, RequestError, Tensor
from tracklayer.serving.tensors import check_finite, decode, encode, shape_of


def free(datatype: str, rank: int = 1) -> Tensor:
    return Tensor("x", datatype, ("",) * rank)


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES", "BOOL"}))
def test_numbers_of_every_type_survive_the_way_there_and_back(datatype: str) -> None:
    dtype = DATATYPES[datatype]
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    values = np.array([limits.min, 0, 1, limits.max], dtype=dtype)
    text = orjson.dumps(encode(free(datatype), values), option=orjson.OPT_SERIALIZE_NUMPY)
    back = orjson.loads(text)
    array = decode(free(datatype), back["shape"], back["data"], "x")
    assert array.dtype == dtype
    assert np.array_equal(array, values)


@pytest.mark.parametrize(("datatype", "values"), [("BOOL", [True, False]), ("BYTES", ["é\0", ""])])
def test_booleans_and_strings_survive(datatype: str, values: list[Any]) -> None:
    array = decode(free(datatype), [2], values, "x")
    text = orjson.dumps(encode(free(datatype), array), option=orjson.OPT_SERIALIZE_NUMPY)
    assert orjson.loads(text) == {"name": "x", "shape": [2], "datatype": datatype, "data": values}


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_nested_and_flat_data_are_the_same(shape: list[int], random: Any) -> None:
    array = np.array(
        [random.randint(-100, 100) for _ in range(int(np.prod(shape)))], dtype=np.int32
    ).reshape(shape)
    tensor = free("INT32", len(shape))
    flat = decode(tensor, shape, array.ravel().tolist(), "x")
    nested = decode(tensor, shape, array.tolist(), "x")
    assert flat.shape == nested.shape == tuple(shape)
    assert np.array_equal(flat, array)
    assert np.array_equal(nested, array)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], [1.0], "needs 2 values, data has 1"),
        ("FP32", [10**12], [1.0], "needs 1000000000000 values"),
        ("FP32", [2], [1.0, None], "value 1 of data is of type null"),
        ("FP32", [2], [True, 1], "value 0 of data is of type boolean"),
        ("FP32", [2], ["1", "2"], "type string"),
        ("FP32", [1], [{}], "type object"),
        ("FP32", [1], [[[1.0]]], r"data\[0\]|type array"),
        ("FP32", [2], [1.0, [2.0]], "type array"),
        ("FP32", [1], [1e39], "out of range for FP32"),
        ("FP16", [1], [70000], "out of range for FP16"),
        ("INT8", [1], [128], "out of range for INT8"),
        ("UINT64", [1], [-1], "out of range for UINT64"),
        ("INT64", [1], [2**63], "out of range for INT64"),
        ("INT64", [1], [1.0], "type number"),
        ("BOOL", [1], [1], "type integer"),
        ("BYTES", [1], [1], "type integer"),
        ("FP32", [1], None, "data must be an array, not null"),
        ("FP32", [1], "1", "data must be an array, not string"),
        ("FP32", [1], [10**400], "out of range for FP32"),
        ("FP64", [1], [10**400], "out of range for FP64"),
        ("UINT8", [1], [256], "out of range for UINT8"),
        ("FP32", None, [1.0], "shape must be"),
        ("FP32", [-1], [1.0], "shape must be"),
        ("FP32", [True], [1.0], "shape must be"),
        ("FP32", [1.0], [1.0], "shape must be"),
        ("FP32", [1, 1], [1.0], "does not fit"),
        ("FP32", [], [1.0], "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(
    datatype: str, shape: object, data: object, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        decode(free(datatype), shape, data, "inputs[0] 'x'")
    assert caught.value.status == 400
    assert caught.value.message.startswith("inputs[0] 'x'")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([[1, 2], [3]], "data[1] has 1 values, shape [2, 2] needs 2 there"),
        ([[1, 2], 3], "data[1] is of type integer, shape [2, 2] needs 2 there"),
        ([[1], [2]], "data[0] has 1 values"),
        ([[1, 2, 3, 4]], "data has 1 values"),
    ],
)
def test_ragged_data_is_refused_and_its_place_named(data: object, said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"x: {said}")):
        decode(free("INT32", 2), [2, 2], data, "x")


def test_the_place_of_what_is_ragged_may_be_deep() -> None:
    data = [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0]]]
    with pytest.raises(RequestError, match=r"x: data\[1\]\[1\] has 2 values"):
        decode(free("INT32", 3), [2, 2, 3], data, "x")


def test_a_fixed_axis_must_have_its_size() -> None:
    with pytest.raises(RequestError, match=r"shape \[1, 63\] does not fit \[-1, 64\]"):
        decode(Tensor("x", "FP32", ("batch", 64)), [1, 63], [0.0] * 63, "x")


def test_a_tensor_without_values_is_not_large_otherwise() -> None:
    assert decode(free("FP32", 2), [0, 4096], [], "x").shape == (0, 4096)
    with pytest.raises(RequestError, match=r"no value, and an axis larger than 4096"):
        decode(free("FP32", 2), [0, 2**62], [], "x")


def test_an_array_can_be_written_to() -> None:
    array = decode(free("FP32"), [2], [1, 2], "x")
    array += 1
    assert array.tolist() == [2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_json_cannot_carry_are_refused_from_others(value: float) -> None:
    check_finite(free("INT32"), np.array([1]), "x")
    with pytest.raises(RequestError, match="inputs\\[0\\]: a value of data is NaN or infinite"):
        check_finite(free("FP32"), np.array([1, value], dtype=np.float32), "inputs[0]")


def test_depth_has_an_end() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(RequestError, match="deeper than 32"):
        shape_of(deep, "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_json_cannot_carry_is_an_error_not_null(value: float) -> None:
    with pytest.raises(RequestError, match="output 'x' holds NaN or infinity") as caught:
        encode(free("FP32"), np.array([value], dtype=np.float32))
    assert caught.value.status == 500

"""JSON that is none, and what the client is told of it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracklayer.serving.documents import object_of, parse, place
from tracklayer.serving.model import RequestError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"inputs": [{"name": "x", "data": [1, NaN]}]}', "at inputs[0].data[1]: NaN is no number"),
        ('{"inputs": [{"data": [1]}, {"data": [-Infinity]}]}', "at inputs[1].data[0]: -Infinity"),
        ('{"inputs": [{"name": "x", "data": [[1, 2], [3', "at inputs[0].data[1][0]: "),
        ('{"inputs": [{"name": "x, [{", "shape": [1,]}]}', "at inputs[0].shape[0]: "),
        ('{"a\\"]": 1e999}', 'at a\\"]: '),
        ('{"a": {"b": "cut, [', "at a.b: "),
        ("{\"a\": 'x'}", "at a: "),
        ('{"a": 1} {"b": 2}', "not valid JSON: "),
        ("", "not valid JSON: "),
        ("]", "not valid JSON: "),
    ],
)
def test_the_field_is_named(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(text.encode(), "the body")
    assert said in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '"' + '\\"' * 40_000, '{"a": "' + "[" * 60_000, '{"a": ' * 900 + "x"]
)
def test_no_text_makes_it_slow_or_the_message_long(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(RequestError) as caught:
        object_of(text.encode())
    assert time.process_time() - begin < 1
    assert len(caught.value.message) < 800


@given(st.text(alphabet='{}[],:"\\a1 ', max_size=60))
def test_a_place_is_found_in_anything(text: str) -> None:
    place(text)


@given(
    st.recursive(st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_after_a_whole_document_there_is_no_place(document: object) -> None:
    assert place(json.dumps([document])) == ""

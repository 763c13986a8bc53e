"""Terraform's machine-readable lines become lines and reasons for people."""

from __future__ import annotations

import json

from tracklayer.tools.diagnosis import Diagnosis


def event(message: str, **more: object) -> str:
    return json.dumps({"@level": "info", "@message": message, **more})


def test_lines() -> None:
    diagnosis = Diagnosis()
    assert diagnosis.read(event("one\n\ntwo\n")) == ["one", "two"]
    assert diagnosis.read(event("Terraform 1.11.4", type="version")) == []
    assert diagnosis.read("no json at all") == ["no json at all"]
    assert diagnosis.read('{"json": "of something else"}') == ['{"json": "of something else"}']
    assert diagnosis.read("[1]") == ["[1]"]
    assert diagnosis.read("") == []


def test_the_values_of_outputs_are_not_passed_on() -> None:
    line = event("Outputs: 1", type="outputs", outputs={"token": {"value": "hunter2"}})
    assert Diagnosis().read(line) == ["Outputs: 1"]


def test_errors_are_told_once_with_their_place() -> None:
    found = {
        "severity": "error",
        "summary": "Unsupported argument",
        "detail": 'An argument named "x" is not expected here.\n',
        "address": "terraform_data.a",
        "range": {"filename": "main.tf", "start": {"line": 6, "column": 3, "byte": 1}},
    }
    warning = {"severity": "warning", "summary": "Old", "detail": ""}
    diagnosis = Diagnosis()
    expected = (
        "Error: Unsupported argument (terraform_data.a, main.tf line 6)\n"
        'An argument named "x" is not expected here.'
    )
    for _ in range(2):
        assert diagnosis.read(event("Error: ...", diagnostic=found)) == expected.splitlines()
    assert diagnosis.read(event("Warning: Old", diagnostic=warning)) == ["Warning: Old"]
    assert str(diagnosis) == expected


def test_without_an_error_the_end_of_the_plain_output_is_the_reason() -> None:
    diagnosis = Diagnosis()
    assert str(diagnosis) == "it says nothing"
    for number in range(100):
        diagnosis.read(f"line {number}")
    assert str(diagnosis).splitlines() == [f"line {number}" for number in range(80, 100)]


def test_a_long_reason_is_cut() -> None:
    diagnosis = Diagnosis()
    diagnosis.read("x" * 10_000)
    assert len(str(diagnosis)) < 4100

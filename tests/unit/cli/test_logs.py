from __future__ import annotations

import pytest

from tracklayer.cli.client import Platform, Step
from tracklayer.cli.logs import Line, LogReader, reason

LOG = "GET /api/v2/dags/p/dagRuns/r/taskInstances/a/logs/1"
AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def reader(server):
    with Platform(server.url, "t") as platform:
        yield LogReader(platform, "p", "r", Step("a", "a", -1, "running", 1, None, None))


def event(text, level="info", **more):
    return {"event": text, "level": level, "timestamp": AT, **more}


def failed(kind, value):
    return event("Task failed", "error", error_detail=[{"exc_type": kind, "exc_value": value}])


def test_what_airflow_says_about_itself_is_left_out(server, reader):
    content = [
        {"event": "::group::Log message source details"},
        {"event": "/some/file.log"},
        {"event": "::endgroup::"},
        event("::group::Pre Execute"),
        event("DAG bundles loaded"),
        event("cannot read the bundle", "error"),
        event("::endgroup::"),
        event("Task exited", "error", exit_code=8),
        event("epoch 1"),
        event("two\nlines"),
        event(""),
    ]
    server.answers[LOG] = (200, {"content": content, "continuation_token": "x"})
    lines = reader.read()
    assert [line.text for line in lines] == [
        "cannot read the bundle",
        "epoch 1",
        "two",
        "lines",
        "",
    ]
    assert lines[1].document("a")["step"] == "a"


def test_reading_on_begins_where_it_ended_and_remembers_an_open_group(server, reader):
    first = {"content": [event("one"), event("::group::Post Execute")], "continuation_token": "n+1"}
    second = {"content": [event("inside"), event("::endgroup::"), "plain"]}
    server.answers[LOG] = [(200, first), (200, second)]
    assert [line.text for line in reader.read()] == ["one"]
    assert [line.text for line in reader.read()] == ["plain"]
    assert "token=" not in server.asked[0].query
    assert "token=n%2B1" in server.asked[1].query


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        (
            failed("JobFailed", "the script ended with 3\n  see above"),
            ["the script ended with 3", "  see above"],
        ),
        (failed("ValueError", "boom"), ["ValueError: boom"]),
        (failed("KeyError", ""), ["KeyError"]),
    ],
)
def test_an_exception_is_its_message(server, reader, entry, texts):
    server.answers[LOG] = (200, {"content": [entry]})
    lines = reader.read()
    assert [line.text for line in lines] == texts
    assert {line.level for line in lines} == {"error"}


def test_codes_for_the_terminal_are_taken_apart(server, reader):
    server.answers[LOG] = (
        200,
        {"content": [event("\x1b[31mred\x1b[0m \x1b]0;title\x07[bold]\x1b[2J\x1b7")]},
    )
    (line,) = reader.read()
    assert line.styled().plain == "red [bold]"
    assert line.styled().spans


def test_the_reason_is_the_errors_or_else_the_end():
    talk = [Line(None, "info", f"line {n}") for n in range(30)]
    assert reason(talk).splitlines() == [f"line {n}" for n in range(18, 30)]
    assert reason([*talk, Line(None, "error", "\x1b[1mbad\x1b[0m"), *talk]) == "bad"
    assert reason([]) == ""

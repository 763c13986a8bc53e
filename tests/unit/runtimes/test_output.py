from __future__ import annotations

from pathlib import Path

import pytest

from tracklayer.runtimes import output
from tracklayer.runtimes.output import LONGEST, LogTail


def everything(path: Path, offset: int = 0) -> list[str]:
    return list(LogTail(path, offset).last())


def test_lines_come_when_they_are_whole_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    assert list(tail.lines()) == []  # not there yet
    with path.open("ab", buffering=0) as file:
        file.write(b"one\ntw")
        assert list(tail.lines()) == ["one"]
        assert tail.offset == 4
        file.write(b"o\r\n\nthree")
        assert list(tail.lines()) == ["two", ""]
    assert list(tail.last()) == ["three"]
    assert tail.offset == path.stat().st_size
    assert list(tail.last()) == []


def test_a_log_that_is_put_aside_is_read_to_its_own_end(tmp_path: Path) -> None:
    path, aside = tmp_path / "log", tmp_path / "aside"
    path.write_bytes(b"one\n")
    with LogTail(path) as tail:
        assert list(tail.lines()) == ["one"]
        with path.open("ab") as file:
            file.write(b"two")
        path.rename(aside)
        path.write_bytes(b"the first line of another attempt\n")
        assert list(tail.last()) == ["two"]


def test_a_second_reader_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nth")
    first = LogTail(path)
    assert list(first.lines()) == ["one", "two"]
    with path.open("ab") as file:
        file.write(b"ree\n")
    assert everything(path, first.offset) == ["three"]


def test_bytes_that_are_no_text_are_replaced_and_characters_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    with path.open("ab", buffering=0) as file:
        file.write(b"a\xff\xfe b \xc3")
        assert list(tail.lines()) == []
        file.write(b"\xa9\n")
    assert list(tail.last()) == ["a\ufffd\ufffd b é"]


def test_a_progress_bar_is_its_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\r 10%\r 50%\r100%\ndone\r\n\r 1%\r 2%\r")
    tail = LogTail(path)
    assert list(tail.lines()) == ["100%", "done"]
    monkeypatch.setattr(output, "PROGRESS", 0.0)
    assert list(tail.lines()) == [" 2%"]
    assert list(tail.last()) == []


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_very_long_line_comes_in_pieces_without_loss(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "log"
    text = "aé€😀" * 60_000
    path.write_bytes(text.encode() + end)
    pieces = everything(path)
    assert "".join(pieces) == text
    assert max(len(piece.encode()) for piece in pieces) <= LONGEST


def test_a_long_progress_bar_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"\r%7d of 200000" % n for n in range(200_000)))
    tail = LogTail(path)
    assert list(tail.lines()) == []
    assert len(tail._rest) <= LONGEST
    assert list(tail.last()) == [" 199999 of 200000"]

"""Would an unpickler that is given this content run something? Told without running anything.

The opcodes are walked as the unpickler of CPython walks them, with the depth of its stack in place
of the stack. Wherever the two differ, this one goes on where that one stops. So a text or another
format that is a working pickle as well is found, and other texts end at their first line, nearly
always at their first byte.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tracklayer.formats.content import HEAD, Content, UnreadableError

_IMPORTS = {"GLOBAL", "INST", "STACK_GLOBAL"}
_USES = {
    *("REDUCE", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX", "BUILD", "STOP"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"),
}
"""What is done with an import that can change something; many a word list imports, so to say."""

_NUMBER = re.compile(rb"\s*[+-]?\d\w*\s*(\0.*)?", re.DOTALL)
_LINES = {
    "INT": _NUMBER,
    "LONG": _NUMBER,
    "GET": _NUMBER,
    "PUT": _NUMBER,
    "FLOAT": re.compile(rb"\s*[\w.+-]+\s*(\0.*)?", re.DOTALL),
    "STRING": re.compile(rb"\s*(['\"]).*\1\s*", re.DOTALL),
    "GLOBAL": re.compile(rb"[\w.\x80-\xff]+"),
    "INST": re.compile(rb"[\w.\x80-\xff]+"),
}
"""What the argument of an opcode looks like, where it is a line."""

_UNICODES = re.compile(rb"(?:V[^\n]*\n)+")
"""Any line is one; a table whose rows all begin so is walked many rows at a time."""

_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes that say how long the rest of an argument is."""
_HIGHEST = max(op.proto for op in pickletools.opcodes)
_DEEPEST = 1 << 20
"""Marks that lie open at once; more are no content but an attack on whoever counts them."""


@dataclass(frozen=True, slots=True)
class _Opcode:
    name: str
    argument: int | None
    to_mark: bool
    takes: int
    gives: int


def _opcode(op: pickletools.OpcodeInfo) -> _Opcode:
    marks = (pickletools.markobject, pickletools.stackslice)
    to_mark = marks[0] in op.stack_before
    takes = sum(item not in marks for item in op.stack_before)
    gives = sum(item not in marks for item in op.stack_after)
    if op.name == "OBJ":  # what it takes lies above the mark
        takes = 0
    if op.name in ("PUT", "BINPUT", "LONG_BINPUT"):  # they look at it, and leave it
        takes = gives = 1
    return _Opcode(op.name, op.arg.n if op.arg else None, to_mark, takes, gives)


_OPCODES = {
    op.code.encode("latin-1"): _opcode(op)
    for op in pickletools.opcodes
    # Nobody has registered an extension, or reads identities of text: here unpicklers stop.
    if op.name not in ("EXT1", "EXT2", "EXT4", "PERSID")
}


def is_pickle(content: Content) -> bool:
    """Is there a pickle of any protocol (0 to 5) at the beginning of the content: one that imports
    something, or one that imports nothing and is whole? Yes, if it cannot be told."""
    try:
        return _is_pickle(content)
    except UnreadableError:
        return True


def _is_pickle(content: Content) -> bool:
    marked = content.head[:1] == b"\x80"
    stack = _Stack()
    imported = False
    last, stops, steps = "", 0, 0
    for op in _walk(content):
        if op is None or not stack.does(op):
            return marked and stops > 0
        imported |= op.name in _IMPORTS
        if (imported and op.name in _USES) or len(stack.marks) > _DEEPEST:
            return True
        last = op.name
        stops += last == "STOP"
        steps += 1
    # Before protocol 2 there was no mark. "N." is None, and may be the whole of somebody's note.
    return marked or (last == "STOP" and steps > 3)


class _Stack:
    def __init__(self) -> None:
        self._depth = 0
        self.marks: list[int] = []

    def does(self, op: _Opcode) -> bool:
        """Do what the opcode does; False if the stack does not have what it takes."""
        if op.name == "MARK":
            self.marks.append(self._depth)
            return True
        if op.name == "STOP":
            done, self._depth, self.marks = self._depth > 0, 0, []
            return done
        if op.name == "POP" and self.marks and self.marks[-1] == self._depth:
            self.marks.pop()
            return True
        if op.to_mark:
            if not self.marks:
                return False
            self._depth = self.marks.pop()
        if self._depth < op.takes:
            return False
        self._depth += op.gives - op.takes
        return True


def _walk(content: Content) -> Iterator[_Opcode | None]:
    """The opcodes to the content's end; None, at last, for one that is not right."""
    position = 0
    while code := content.at(position, 1):
        if code == b"V" and (lines := _UNICODES.match(content.at(position, HEAD))):
            yield _Opcode("UNICODE", None, False, 0, gives=lines[0].count(b"\n"))
            position += lines.end()
            continue
        op = _OPCODES.get(code)
        end = _skip(content, op, position + 1) if op else None
        if end is None:
            yield None
            return
        yield op
        position = end


def _skip(content: Content, op: _Opcode, position: int) -> int | None:
    """Where the argument ends that begins at ``position``; None if it is not right."""
    if op.argument is None:
        return position
    if op.argument == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if op.name in ("GLOBAL", "INST") else 1):
            line, position = _line(content, position)
            if len(line) < HEAD and op.name in _LINES and not _LINES[op.name].fullmatch(line):
                return None
        return position
    if op.name == "PROTO" and content.at(position, 1) > bytes([_HIGHEST]):
        return None
    if op.argument >= 0:
        return position + op.argument
    width = _LENGTHS[op.argument]
    signed = op.argument == pickletools.TAKEN_FROM_ARGUMENT4
    length = int.from_bytes(content.at(position, width), "little", signed=signed)
    return position + width + length if length >= 0 else None


def _line(content: Content, position: int) -> tuple[bytes, int]:
    """The first bytes of the line at ``position``, at most HEAD of them, and where it ends."""
    start = part = content.at(position, HEAD)
    while part and (length := part.find(b"\n")) < 0:
        position += len(part)
        part = content.at(position, HEAD)
    length = part.find(b"\n")
    return start.partition(b"\n")[0], position + length + 1

"""YAML as plain data with positions, read with caps and without surprises.

The text goes through libyaml's safe parser. Plain scalars are then read by the core schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), and what YAML 1.1 would read in another
way (``no``, ``1_000``, ``010``, ``12:30``, a date) is refused, so that a file means the same to
every reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Never

import yaml

from tracklayer.errors import Problem, SpecError
from tracklayer.spec.positions import Loc, Place, Positions, dotted

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_ALIASES = 32
MAX_NODES = 5000  # after every alias is replaced by what it stands for

_STR = "tag:yaml.org,2002:str"
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_ZERO_FIRST = re.compile(r"0o[0-7]+|[-+]?0[0-9]+([eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_JINJA = re.compile(r"\{\{|\{%|\{#")
_KEEP_DATA_OUT = "Keep data in files of its own and name them under `sources`."
_NO_TEMPLATES = "A spec is data: nothing in it is evaluated. Write the value itself."


@dataclass(slots=True)
class Document:
    """What a file says, where it says it, and what is wrong with it as YAML.

    ``written`` has the source text of every plain scalar; ``problems`` the refused values, by path.
    """

    positions: Positions
    data: dict[str, Any] = field(default_factory=dict)
    written: dict[Loc, str] = field(default_factory=dict)
    problems: dict[Loc, Problem] = field(default_factory=dict)


def parse(text: str | bytes, file: str) -> Document:
    """Read one YAML mapping.

    :raises SpecError: the text cannot be read at all. Values that are refused one by one are in
        ``Document.problems`` instead, so that they can be reported with all others.
    """
    decoded = _decode(text, file)
    with _mapped(decoded, file):
        _guard(decoded, file)
        root = yaml.compose(decoded, Loader=yaml.CSafeLoader)
    if root is None:
        _refuse(file, None, "the file is empty", "Start with `name:` and `template:`.")
    if not isinstance(root, yaml.MappingNode):
        _refuse(file, root.start_mark, "the file must be a mapping of keys to values")
    return _Reader(file).read(root)


def _decode(text: str | bytes, file: str) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        limit = f"{MAX_BYTES // 1024} KiB"
        _refuse(file, None, f"the file is larger than {limit}, the limit", _KEEP_DATA_OUT)
    try:
        decoded = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = _end(raw[: error.start].decode())
        problem = Problem(file, *place, "the file is not UTF-8 text", "Save it as UTF-8.")
        raise SpecError([problem]) from None
    if found := _UNPRINTABLE.search(decoded):
        name = f"U+{ord(found.group()):04X}"
        message = f"the character {name} must not be in a spec"
        raise SpecError([Problem(file, *_end(decoded[: found.start()]), message)])
    return decoded


def _end(text: str) -> Place:
    """Line and column of the character after a text."""
    lines = _BREAK.split(text)
    return len(lines), len(lines[-1]) + 1


def _refuse(file: str, mark: Any, message: str, hint: str | None = None) -> Never:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    raise SpecError([Problem(file, line, column, message, hint)])


@contextmanager
def _mapped(text: str, file: str) -> Iterator[None]:
    """Map the parser's errors to ours."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        index = mark.index if mark else len(text)
        rest = text[index:].partition("\n")[0].partition(" #")[0].rstrip()
        message, hint = f"not valid YAML: {error.problem}", None
        if text[index : index + 1] == "\t" or "tab" in str(error.problem):
            message, hint = "not valid YAML: a tab where spaces belong", "Indent with spaces."
        elif text[:index].endswith("{") and rest[:1] == "%":
            message, hint = "`{%` starts a template", _NO_TEMPLATES
        elif rest[:1] in ("@", "`", "%"):
            message = f"not valid YAML: a value cannot start with {rest[0]}"
            hint = f'Write it in quotes: "{short(rest)}"'
        elif "mapping values are not allowed" in str(error.problem):
            hint = "Put a value that contains a colon and a space in quotes."
        elif error.context:
            message += f" {error.context}"
        _refuse(file, mark, message, hint)
    except yaml.YAMLError as error:
        _refuse(file, None, f"not valid YAML: {error}")


def _guard(text: str, file: str) -> None:
    """Refuse, before anything is built, what would be costly to build."""
    depth = nodes = aliases = documents = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        mark = event.start_mark
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _refuse(file, mark, "a second YAML document starts here; a spec is one")
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                _refuse(file, mark, f"more than {MAX_ALIASES} aliases (*name)", "Write it out.")
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            nodes += 1
            if nodes > MAX_NODES:
                _refuse(file, mark, f"more than {MAX_NODES} values", _KEEP_DATA_OUT)
            if event.tag is not None:
                hint = "Write the plain value, in quotes if it is text."
                _refuse(file, mark, f"the tag {short(event.tag)} is not accepted", hint)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(file, mark, f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    """Walks the node tree of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.document = Document(Positions(file))
        self.nodes = 0

    def read(self, root: yaml.MappingNode) -> Document:
        self.document.data = self.mapping(root, ())
        mark = (root.value[0][0] if root.value else root).start_mark
        self.document.positions.values[()] = mark.line + 1, mark.column + 1
        return self.document

    def wrong(self, loc: Loc, node: yaml.Node, message: str, hint: str | None = None) -> None:
        place = node.start_mark.line + 1, node.start_mark.column + 1
        self.document.problems.setdefault(loc, Problem(self.file, *place, message, hint))

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            _refuse(self.file, node.start_mark, f"more than {MAX_NODES} values with all aliases")
        if len(loc) > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels; is an alias inside its own anchor?"
            _refuse(self.file, node.start_mark, message)
        place = node.start_mark.line + 1, node.start_mark.column + 1
        self.document.positions.values[loc] = place
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, loc)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node, loc)
            if key is None:
                continue
            inner = (*loc, key)
            if key in result:
                first = self.document.positions.keys[inner][0]
                message = f"`{dotted(inner)}` is there twice; first on line {first}"
                # A path that no value has, so that it hides no other problem of the first one.
                self.wrong((*inner, "<twice>", key_node.start_mark.line), key_node, message)
                continue
            place = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            self.document.positions.keys[inner] = place
            result[key] = self.value(value_node, inner)
            if result[key] is None:
                hint = "Write a value after the colon, or delete the line."
                self.wrong(inner, key_node, f"`{dotted(inner)}` has no value", hint)
        return result

    def key(self, node: yaml.Node, loc: Loc) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            braces = isinstance(node, yaml.MappingNode) and node.flow_style
            what = "`{{` starts a template" if braces else "a key must be plain text"
            self.wrong(loc, node, what, _NO_TEMPLATES if braces else None)
            return None
        found = self.scalar(node, (*loc, node.value))
        self.document.written.pop((*loc, node.value), None)
        if found is None or not isinstance(found, str):
            hint = f'Write "{node.value}" in quotes.'
            self.wrong((*loc, node.value), node, f"the key `{node.value}` is not text", hint)
        return str(node.value)

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        text: str = node.value
        if node.style:  # quoted, or a block: text whatever it looks like
            return self.text(node, loc)
        self.document.written[loc] = text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            number = int(text) if len(text) <= 20 else 2**64
            if abs(number) < 2**63:
                return number
            self.wrong(loc, node, f"the number {short(text)} is too large")
        elif _FLOAT.fullmatch(text):
            real = float(text)
            if abs(real) != float("inf"):
                return real
            self.wrong(loc, node, f"the number {short(text)} is too large")
        elif _NOT_FINITE.fullmatch(text):
            self.wrong(loc, node, f"`{text}` is not a finite number")
        elif node.tag == "tag:yaml.org,2002:merge":
            self.wrong(loc, node, "merge keys (`<<`) are not accepted", "Write the keys out.")
        elif node.tag == "tag:yaml.org,2002:bool":
            meant = str(text.lower() in ("yes", "on")).lower()
            hint = f'Write {meant}, or "{text}" in quotes if it is text.'
            self.wrong(loc, node, f"`{text}` is {meant} to some readers of YAML, not all", hint)
        elif node.tag != _STR or _ZERO_FIRST.fullmatch(text):
            hint = f'Write "{short(text)}" in quotes if it is text, or a plain decimal number.'
            message = f"`{short(text)}` means different things to readers of YAML"
            self.wrong(loc, node, message, hint)
        else:
            return self.text(node, loc)
        return text

    def text(self, node: yaml.ScalarNode, loc: Loc) -> str:
        text: str = node.value
        if found := _JINJA.search(text):
            self.wrong(loc, node, f"`{found.group()}` starts a template", _NO_TEMPLATES)
        elif found := _CONTROL.search(text):
            self.wrong(loc, node, f"the control character U+{ord(found.group()):04X} in a text")
        return text


def short(text: str) -> str:
    """A text that fits into a message."""
    return text if len(text) <= 24 else f"{text[:20]}…"

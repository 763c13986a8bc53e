"""Texts, and code: what an interpreter or the system's loader would run."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import PurePosixPath

from tracklayer.formats.content import HEAD, Content, Format

_CODE = {
    "Python source": (".py", ".pyw", ".pyx"),
    "Python bytecode": (".pyc", ".pyo"),
    "shared library": (".so", ".pyd", ".dll", ".dylib", ".node"),
    "executable": (".exe", ".msi"),
    "script": (
        *(".sh", ".bash", ".zsh", ".fish", ".csh", ".ksh", ".bat", ".cmd", ".ps1", ".psm1"),
        *(".js", ".mjs", ".cjs", ".rb", ".pl", ".pm", ".php", ".lua", ".vbs", ".jl", ".r"),
    ),
}
"""What is run because of its name, whatever is in it: a GIF can be Python as well."""
_CODE_OF = {suffix: Format(kind, "code") for kind, found in _CODE.items() for suffix in found}

_EXECUTABLES = {
    "ELF executable": rb"\x7fELF",
    "Windows executable": rb"MZ.{58,1024}PE\0\0",
    "Mach-O executable": rb"\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba[\xbe\xbf]",
    "WebAssembly": rb"\0asm",
    "static library": rb"!<(arch|thin)>\n",
    "LLVM bitcode": rb"BC\xc0\xde",
    "Python bytecode": rb".[\x0b-\x0f]\r\n[\0-\x03]\0\0\0",
    "script": rb"(\xef\xbb\xbf)?#!",
}
_RUN = [
    *((re.compile(mark, re.DOTALL), Format(kind, "code")) for kind, mark in _EXECUTABLES.items())
]

_SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".json": "JSON",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".toml": "TOML",
    ".md": "Markdown",
    ".html": "HTML",
    ".xml": "XML",
    ".svg": "SVG",
    ".ipynb": "notebook",
}
_BEGINNINGS = {
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "LightGBM": b"tree\nversion=",
}
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROL = bytes([*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F])
"""What is in no text of ASCII or what extends it; an escape is in many a log."""
_DOCUMENT = 16 << 20
"""Bytes of a YAML or JSON document that are looked at."""
_TAG = re.compile(
    r"(?<![^\s\[{,])!(?:<|!(?!(?:str|int|float|bool|null|seq|map|set|omap|pairs|binary|timestamp"
    r"|merge|value)\b)[\w%])|^%TAG",
    re.MULTILINE,
)
"""A tag of YAML that is none of its own types: PyYAML's unsafe loader makes any object of some."""


def code(content: Content, name: str) -> Format | None:
    """What is run, by its name or by its first bytes."""
    path = PurePosixPath(name)
    if content.head and path.suffix.lower() in _CODE_OF:
        return _CODE_OF[path.suffix.lower()]
    return next((form for mark, form in _RUN if mark.match(content.head)), None)


def text(content: Content, name: str) -> Format | None:
    """A text of any encoding; which kind of text, its name tells."""
    bom = next((bom for bom in _BOMS if content.head.startswith(bom)), b"")
    encoding = _BOMS.get(bom, "utf-8")
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        decoder.decode(content.head, final=len(content.head) < HEAD)
    except UnicodeDecodeError:
        # Nothing tells one encoding of eight bits from another; what is compressed or encrypted has
        # no 256 bytes without a control character.
        plain = sum(byte < 0x80 for byte in content.head)
        if bom or (len(content.head) < 256 and plain < 0.6 * len(content.head)):
            return None
        encoding = "latin-1"
    wide = encoding in ("utf-16", "utf-32")
    if not wide and (_has_control(content.head) or _has_control(content.tail)):
        return None
    return _kind(content, PurePosixPath(name), encoding)


def _has_control(data: bytes) -> bool:
    # A tenth of the time that a regular expression takes.
    return len(data.translate(None, _CONTROL)) < len(data)


def _kind(content: Content, path: PurePosixPath, encoding: str) -> Format:
    for kind, beginning in _BEGINNINGS.items():
        if content.head.startswith(beginning):
            return Format(kind)
    if path.name == "MLmodel":
        return Format("MLflow model")
    kind = _SUFFIXES.get(path.suffix.lower(), "text")
    if kind == "YAML" and _TAG.search(_document(content, encoding)):
        return Format("YAML with objects of Python", "code")
    if path.name.endswith("config.json") and _names_code(_document(content, encoding)):
        return Format("JSON that names code of another repository", "code")
    return Format(kind)


def _document(content: Content, encoding: str) -> str:
    return content.at(0, _DOCUMENT).decode(encoding, "replace")


def _names_code(document: str) -> bool:
    """Does a configuration of transformers name classes as ``owner/repository--module.Class``?"""
    try:
        names = json.loads(document.removeprefix("\ufeff"))["auto_map"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return "--" in json.dumps(names)

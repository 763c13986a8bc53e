from __future__ import annotations

import json
import py_compile
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracklayer.formats import Format

Tell = Callable[..., Format]
UNKNOWN = Format("binary", "unknown")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/table.CSV", "CSV"),
        ("table.tsv", "TSV"),
        ("rows.jsonl", "JSON lines"),
        ("config.json", "JSON"),
        ("MLmodel", "MLflow model"),
        ("conf.yml", "YAML"),
        ("pyproject.toml", "TOML"),
        ("README.md", "Markdown"),
        ("explore.ipynb", "notebook"),
        ("LICENSE", "text"),
        ("model.safetensors", "text"),
        ("merges.txt", "text"),
    ],
)
def test_only_texts_are_told_apart_by_name(tell: Tell, name: str, kind: str) -> None:
    assert tell(b'{"a": 1}\n', name) == Format(kind)
    assert tell(b'{"a": 1}\0', name) == UNKNOWN


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "gbk", "shift-jis"]
)
def test_encodings(tell: Tell, encoding: str) -> None:
    letters = {"gbk": "你好世界", "shift-jis": "こんにちは"}.get(encoding, "Größe")
    data = f"name,{letters}\n1,{letters}\n".encode(encoding) * 3000
    assert tell(data, "table.csv") == Format("CSV")


def test_a_letter_cut_by_the_end_of_what_is_read(tell: Tell) -> None:
    for shift in range(3):
        assert tell(b"a" * shift + "€".encode() * 40_000) == Format("text")


def test_no_text(tell: Tell) -> None:
    assert tell(b"abc\x01def\n" * 10) == UNKNOWN
    assert tell(b"a,b\n" * 30_000 + b"\0\1\2") == UNKNOWN, "its end counts too"
    assert tell(bytes(range(0x80, 0x100))) == UNKNOWN
    assert tell(b"\xff\xfe\x00\xd8") == UNKNOWN


def test_small_texts(tell: Tell) -> None:
    assert tell(b"") == Format("empty file")
    assert tell(b"", "__init__.py") == Format("empty file")
    assert tell(b"\n") == Format("text")
    assert tell("Größe".encode("latin-1")) == Format("text")


def test_a_pointer_of_git_lfs(tell: Tell) -> None:
    data = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    assert tell(data, "model.safetensors") == Format("Git LFS pointer")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("modeling.py", "Python source"),
        ("a/B.PY", "Python source"),
        ("run.sh", "script"),
        ("lib.so", "shared library"),
        ("x.pyc", "Python bytecode"),
        ("setup.exe", "executable"),
    ],
)
@pytest.mark.parametrize("data", [b"import os\n", b"GIF89a=1;import os\n", b"\xff\0\1"])
def test_code_by_name_whatever_it_looks_like(tell: Tell, name: str, kind: str, data: bytes) -> None:
    assert tell(data, name) == Format(kind, "code")


def test_code_by_content_whatever_it_is_called(tell: Tell, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    compiled = py_compile.compile(str(tmp_path / "a.py"), str(tmp_path / "a.pyc"))
    assert compiled
    assert tell(Path(compiled).read_bytes(), "weights.bin") == Format("Python bytecode", "code")
    python = Path(sys.executable).resolve().read_bytes()
    assert tell(python, "weights.bin") == Format("ELF executable", "code")
    assert tell(b"#!/usr/bin/env python\n", "README") == Format("script", "code")
    assert tell(b"MZ" + bytes(126) + b"PE\0\0" + bytes(80), "x.png").risk == "code"
    for mark in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm\1\0\0\0"):
        assert tell(mark + bytes(60), "x.bin").risk == "code"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [ls]\n",
        "a: !<tag:yaml.org,2002:python/object/apply:os.system> [ls]\n",
        "%TAG !e! tag:yaml.org,2002:python/object/\n---\na: !e!apply:os.system [ls]\n",
        "a: !!%70ython/object/apply:os.system [ls]\n",
        "- [!!python/name:os.system ]\n",
        "# " + "x" * 100_000 + "\na: !!python/name:os.system\n",
    ],
)
def test_yaml_that_makes_objects_is_code(tell: Tell, text: str) -> None:
    form = Format("YAML with objects of Python", "code")
    assert tell(text.encode(), "conf.yaml") == form
    assert tell(text.encode("utf-16"), "conf.yml") == form
    assert tell(text.encode(), "notes.txt") == Format("text")


def test_other_tags_of_yaml_are_none(tell: Tell) -> None:
    text = "a: !!str 1\nb: !Ref x\nc: really!!\nd: !!binary aGk=\n"
    assert tell(text.encode(), "conf.yaml") == Format("YAML")


def test_a_configuration_that_names_code_elsewhere(tell: Tell) -> None:
    here = {"auto_map": {"AutoModel": "modeling.Model"}}
    there = {"auto_map": {"AutoModel": "owner/repository--modeling.Model"}}
    form = Format("JSON that names code of another repository", "code")
    assert tell(json.dumps(here).encode(), "config.json") == Format("JSON")
    assert tell(json.dumps(there).encode(), "tokenizer_config.json") == form
    assert tell(json.dumps(there).encode("utf-16"), "config.json") == form
    assert tell(b'{"auto\\u005fmap": {"x": "a/b--c.D"}}', "config.json") == form
    assert tell(b"[" * 100_000, "config.json") == Format("JSON")

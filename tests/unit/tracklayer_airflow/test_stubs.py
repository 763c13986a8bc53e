from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracklayer.errors import SpecError
from tracklayer_airflow.stubs import dag_stub, write_stubs

if TYPE_CHECKING:
    from tests.conftest import Remote

CONTENT = "0" * 40
VALID = "name: {name}\ntemplate: train-and-deploy@1\ntrain: {{script: train.py}}\n"


def valid(name: str, *more: str) -> str:
    return VALID.format(name=name) + "".join(f"{line}\n" for line in more)


def embedded(stub: bytes) -> str:
    """The text that Python sees in a stub, without running it."""
    for statement in ast.parse(stub).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "SPEC":
            assert isinstance(statement.value, ast.Constant)
            return cast(str, statement.value.value)
    raise AssertionError("the stub has no SPEC")


def raised(path: Path) -> tuple[SpecError, str]:
    """The error that an error stub raises, and the last line of its trace."""
    code: CodeType = compile(path.read_bytes(), str(path), "exec")
    with pytest.raises(SpecError) as caught:
        exec(code, {})
    last = "".join(traceback.format_exception(caught.value)).strip().splitlines()
    return caught.value, last[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stubs"
    made.mkdir()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What a spec is written with: all of Unicode but what no YAML file can have.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
PIECES = st.lists(
    st.sampled_from(
        [
            *(
                '"',
                '"""',
                "'''",
                "\\",
                "\\N{DASH}",
                "\\x",
                "{{ x }}",
                "{x}",
                "{",
                "%s",
                "#",
                "a: 1",
            ),
            *("\n", "\r\n", "\r", "\f", "\x85", "\u2028", "\ufeff", "\t", " ", "é", "😀"),
            *("# coding: latin-1\n", '"""\n__import__("os")\n"""'),
        ]
    )
).map("".join)


@given(TEXT | PIECES)
@example('""" + __import__("os") + """')
@example("name: a\r\ntemplate: b\r\n")
@example('ends with a quote"')
@example("ends with a backslash\\")
@example("{{ macros }} {% raw %} {text} {name!r}")
@example("")
@settings(max_examples=300, deadline=None)
def test_any_text_comes_out_of_its_stub_as_it_went_in(text: str) -> None:
    stub = dag_stub("digits", text, CONTENT)
    assert embedded(stub.encode()) == text
    assert ast.unparse(ast.parse(stub).body[-1]) == (
        "dag = build_dag(SPEC, 'digits/tracklayer.yaml')"
    )


def test_a_pinned_stub_says_where_the_files_are() -> None:
    stub = dag_stub("digits", "name: digits", CONTENT, commit="c0ffee")
    assert ast.unparse(ast.parse(stub).body[-1]) == (
        "dag = build_dag(SPEC, 'digits/tracklayer.yaml', commit='c0ffee')"
    )


def test_a_stub_has_the_words_that_airflow_looks_for(remote: Remote, folder: Path) -> None:
    commit = remote.push({"a/tracklayer.yaml": valid("a"), "b/tracklayer.yaml": "name: B\n"})
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == ["project-a.py", "project-b__error.py"]
    for path in folder.iterdir():
        content = path.read_bytes().lower()
        assert b"dag" in content, path
        assert b"airflow" in content, path


def test_a_file_changes_only_with_its_project(remote: Remote, folder: Path) -> None:
    def inodes() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in folder.iterdir()}

    crlf = valid("b").replace("\n", "\r\n")
    files = {"a/tracklayer.yaml": valid("a"), "b/tracklayer.yaml": crlf, "c/tracklayer.yaml": "x"}
    write_stubs(remote.repository, remote.push(files), folder)
    first = inodes()
    assert sorted(first) == ["project-a.py", "project-b.py", "project-c__error.py"]

    write_stubs(remote.repository, remote.push({"README.md": "of all projects\n"}), folder)
    assert inodes() == first

    # Runs are to use the new files: by the change of its stub Airflow learns of the commit.
    write_stubs(remote.repository, remote.push({"a/train.py": "print(1)\n"}), folder)
    second = inodes()
    assert {name for name in first if first[name] != second[name]} == {"project-a.py"}

    changed = valid("a", "description: new")
    write_stubs(remote.repository, remote.push({"a/tracklayer.yaml": changed}), folder)
    assert embedded((folder / "project-a.py").read_bytes()) == changed
    assert {name for name in first if second[name] != inodes()[name]} == {"project-a.py"}


def test_the_same_commit_gives_the_same_bytes_in_any_process(
    remote: Remote, folder: Path, tmp_path: Path
) -> None:
    specs = {f"p{n}/tracklayer.yaml": valid(f"p{n}") for n in range(5)}
    broken = {f"q{n}/tracklayer.yaml": f"name: q{n}\nfoo: 1\nbar: 2\n" for n in range(5)}
    commit = remote.push(specs | broken)
    write_stubs(remote.repository, commit, folder)
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(here) == 10
    script = f"""
from pathlib import Path
from tracklayer.projects import Repository
from tracklayer_airflow.stubs import write_stubs
repository = Repository({str(remote.url)!r}, cache=Path("mirror"))
write_stubs(repository, {commit!r}, Path("stubs"))
"""
    for seed in ("1", "2"):
        other = tmp_path / seed
        (other / "stubs").mkdir(parents=True)
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script], cwd=other, env=environment, check=True)
        there = {path.name: path.read_bytes() for path in (other / "stubs").iterdir()}
        assert there == here


def test_a_removed_project_loses_its_stub(remote: Remote, folder: Path) -> None:
    commit = remote.push({"a/tracklayer.yaml": valid("a"), "b/tracklayer.yaml": "name: B\n"})
    write_stubs(remote.repository, commit, folder)
    (folder / "stray.py").write_text("raise SystemExit\n")
    write_stubs(remote.repository, remote.push({"b": None}), folder)
    assert names(folder) == ["project-a.py"]
    write_stubs(remote.repository, remote.push({"a": None, "x": "x"}), folder)
    assert names(folder) == []


def test_a_folder_without_a_spec_is_no_project(remote: Remote, folder: Path) -> None:
    commit = remote.push({"docs/a.md": "a", "tracklayer.yaml": valid("top"), "a/b/c.py": "1"})
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == []


def test_a_broken_spec_says_where_and_its_last_valid_version_stays(
    remote: Remote, folder: Path
) -> None:
    good = remote.push({"a/tracklayer.yaml": valid("a"), "b/tracklayer.yaml": valid("b")})
    write_stubs(remote.repository, good, folder)
    before = (folder / "project-b.py").stat().st_ino
    remote.push({"a/train.py": "print(1)\n"})
    # The project's files come from the last commit whose spec was valid, the newest of them.
    last = remote.push({"a/other.py": "print(2)\n"})
    commit = remote.push({"a/tracklayer.yaml": valid("a", "tmplate: x", "deploy: {replicas: 0}")})
    write_stubs(remote.repository, commit, folder)

    assert names(folder) == ["project-a.py", "project-a__error.py", "project-b.py"]
    error, last_line = raised(folder / "project-a__error.py")
    assert [(p.file, p.line, p.column) for p in error.problems] == [
        ("a/tracklayer.yaml", 4, 1),
        ("a/tracklayer.yaml", 5, 20),
    ]
    assert "tmplate" in str(error)
    assert "a/tracklayer.yaml:5:20: " in last_line
    stub = (folder / "project-a.py").read_text()
    assert embedded(stub.encode()) == valid("a")
    assert f"commit='{last}'" in stub
    assert (folder / "project-b.py").stat().st_ino == before

    write_stubs(remote.repository, remote.push({"a/tracklayer.yaml": valid("a")}), folder)
    assert names(folder) == ["project-a.py", "project-b.py"]
    assert "commit=" not in (folder / "project-a.py").read_text()


def test_the_last_line_of_the_trace_has_the_place(remote: Remote, folder: Path) -> None:
    """A list of errors shows that line and no other."""
    commit = remote.push({"a/tracklayer.yaml": valid("a", "descripton: x")})
    write_stubs(remote.repository, commit, folder)
    _, last_line = raised(folder / "project-a__error.py")
    assert "a/tracklayer.yaml:4:1: " in last_line
    assert "Did you mean `description`?" in last_line


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("name: a\ntemplate: no-such@1\n", "there is no template `no-such@1`"),
        ("name: a\ntemplate: train-and-deploy@1\n", "needs `train`"),
        ("name: a\n\ttemplate: b\n", "a/tracklayer.yaml:2:"),
        (b"name: \xff\n", "a/tracklayer.yaml:1:"),
        ("a: &a [x]\nb: [*a, *a]\n", "a/tracklayer.yaml:"),
        ("", "a/tracklayer.yaml:1:1:"),
        ('name: "a\\"\\"\\"\\nimport os"\ntemplate: "{{ x }}"\n', "a/tracklayer.yaml:1:7"),
    ],
)
def test_a_spec_that_never_was_valid_has_only_its_error(
    remote: Remote, folder: Path, spec: str | bytes, said: str
) -> None:
    write_stubs(remote.repository, remote.push({"a/tracklayer.yaml": spec}), folder)
    assert names(folder) == ["project-a__error.py"]
    assert said in str(raised(folder / "project-a__error.py")[0])


def test_a_last_valid_version_must_still_have_its_template(
    remote: Remote, folder: Path, own_templates: Path
) -> None:
    from tracklayer.platform import check

    template = own_templates / "mine.v1.yaml"
    template.write_text("steps: {one: {run: noop}}\n")
    remote.push({"a/tracklayer.yaml": "name: a\ntemplate: mine@1\n"})
    commit = remote.push({"a/tracklayer.yaml": "name: a\ntemplate: mine@1\nx: 1\n"})
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == ["project-a.py", "project-a__error.py"]
    template.unlink()
    check._template.cache_clear()
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == ["project-a__error.py"]


def test_two_projects_of_one_name(remote: Remote, folder: Path) -> None:
    commit = remote.push({"a/tracklayer.yaml": valid("a"), "b/tracklayer.yaml": valid("a")})
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == ["project-a.py", "project-b__error.py"]
    assert "Two projects of one name" in str(raised(folder / "project-b__error.py")[0])


def test_projects_that_wait_for_each_other(remote: Remote, folder: Path) -> None:
    def after(name: str, other: str) -> str:
        return valid(name, f"schedule: {{after: [{other}/model]}}")

    remote.push({f"{name}/tracklayer.yaml": valid(name) for name in "abc"})
    commit = remote.push(
        {
            "a/tracklayer.yaml": after("a", "b"),
            "b/tracklayer.yaml": after("b", "a"),
            "c/tracklayer.yaml": after("c", "a"),
        }
    )
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == [
        "project-a.py",
        "project-a__error.py",
        "project-b.py",
        "project-b__error.py",
        "project-c.py",
    ]
    for name in "ab":
        error, last_line = raised(folder / f"project-{name}__error.py")
        assert f"{name}/tracklayer.yaml:4:" in last_line
        assert "wait for each other" in str(error)
        # Not the text of now: each of the two would set off the other for ever.
        assert embedded((folder / f"project-{name}.py").read_bytes()) == valid(name)


STRANGE = [
    "with space",
    "dots.in.it",
    "-option",
    ":(top)x",
    "ünïcode-😀",
    "back\\slash",
    "end\\",
    "new\\N{DASH}",
    'a"b',
    'a"""b',
    "it's",
    "{{ x }}",
    "{name}",
    "%s",
    "*",
    "x" * 255,
    "__init__",
    "tab\there",
    "CON",
]


def test_no_import_finds_a_project(
    remote: Remote, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = remote.push({"nosuchpackage/tracklayer.yaml": valid("nosuchpackage")})
    write_stubs(remote.repository, commit, folder)
    assert names(folder) == ["project-nosuchpackage.py"]
    monkeypatch.syspath_prepend(folder)
    assert importlib.util.find_spec("nosuchpackage") is None


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_folder_is_one_red_project(remote: Remote, folder: Path, name: str) -> None:
    commit = remote.push({"good/tracklayer.yaml": valid("good"), f"{name}/tracklayer.yaml": "x: 1"})
    write_stubs(remote.repository, commit, folder)
    found = names(folder)
    assert len(found) == 2
    assert "project-good.py" in found
    (error,) = [path for path in folder.iterdir() if path.name != "project-good.py"]
    assert error.name.endswith("__error.py")
    assert error.name.isascii()
    trace, last_line = raised(error)
    assert "/tracklayer.yaml:1:1: " in last_line
    assert not name.isprintable() or f"{name}/tracklayer.yaml:1:1: " in last_line
    str(trace).encode()  # a lone surrogate would fail here, and in Airflow's database


def test_folders_of_similar_names_keep_their_own_errors(remote: Remote, folder: Path) -> None:
    strange = ["a.b", "a b", "a_b", "a%b"]
    commit = remote.push({f"{name}/tracklayer.yaml": "x: 1" for name in strange})
    write_stubs(remote.repository, commit, folder)
    found = {raised(path)[0].problems[0].file for path in folder.iterdir()}
    assert found == {f"{name}/tracklayer.yaml" for name in strange}


def test_the_name_of_a_folder_is_never_code(
    remote: Remote, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = 'a"""; open("marker", "w"); """'
    commit = remote.push({f"{name}/tracklayer.yaml": "x: 1"})
    write_stubs(remote.repository, commit, folder)
    (error,) = folder.iterdir()
    raised(error)
    assert not (tmp_path / "marker").exists()


def test_a_line_break_in_a_folder_hurts_no_other_project(remote: Remote, folder: Path) -> None:
    files = {"good/tracklayer.yaml": valid("good"), "line\nbreak/tracklayer.yaml": "x: 1"}
    write_stubs(remote.repository, remote.push(files), folder)
    assert "project-good.py" in names(folder)


def test_a_name_that_is_not_unicode_hurts_no_other_project(remote: Remote, folder: Path) -> None:
    files = {"good/tracklayer.yaml": valid("good"), os.fsdecode(b"\xff/tracklayer.yaml"): "x: 1"}
    write_stubs(remote.repository, remote.push(files), folder)
    assert len(names(folder)) == 2
    assert "project-good.py" in names(folder)
    (error,) = [path for path in folder.iterdir() if path.name != "project-good.py"]
    str(raised(error)[0]).encode()  # as Airflow's database stores it


def test_what_only_looks_like_code_stays_text(remote: Remote, folder: Path) -> None:
    spec = valid("a", r'description: "__import__(\"os\") \\ \u2028 é"', "# {{ ds }} {% if %} '''")
    write_stubs(remote.repository, remote.push({"a/tracklayer.yaml": spec}), folder)
    assert embedded((folder / "project-a.py").read_bytes()) == spec


def test_stubs_are_read_alike_whatever_the_locale(
    remote: Remote, folder: Path, tmp_path: Path
) -> None:
    spec = valid("a", "description: é")
    commit = remote.push({"a/tracklayer.yaml": spec})
    script = f"""
from pathlib import Path
from tracklayer.projects import Repository
from tracklayer_airflow.stubs import write_stubs
repository = Repository({str(remote.url)!r}, cache=Path("mirror"))
write_stubs(repository, {commit!r}, Path({str(folder)!r}))
"""
    # No UTF-8 mode, no coercion of the C locale: as under a locale of another encoding.
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert embedded((folder / "project-a.py").read_bytes()) == spec

"""YAML: the caps, the traps, and where things are."""

import time

import pytest

from tracklayer.errors import SpecError
from tracklayer.spec.document import MAX_BYTES, parse


def one(text: str | bytes) -> tuple[int, int, str]:
    """The problem of a text, whether it stops the reading or not."""
    try:
        (problem,) = parse(text, "f.yaml").problems.values()
    except SpecError as error:
        (problem,) = error.problems
    assert problem.file == "f.yaml"
    return problem.line, problem.column, f"{problem.message} | {problem.hint}"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
# Few aliases, each twice the one before: 2**15 values.
SMALL_BOMB = "k0: &k0 [x, x]\n" + "".join(
    f"k{i}: &k{i} [*k{i - 1}, *k{i - 1}]\n" for i in range(1, 15)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 32 aliases"),
        (SMALL_BOMB, "more than 5000 values with all aliases"),
        ("a: &a [*a]", "alias inside its own anchor"),
        ("a: &a {b: *a}", "alias inside its own anchor"),
        ("[" * 200_000, "nested deeper than 32 levels"),
        ("{a: " * 50_000, "nested deeper than 32 levels"),
        ("- " * 120_000, "nested deeper than 32 levels"),
        ("? " * 120_000, "nested deeper than 32 levels"),
        ("".join(" " * i + "a:\n" for i in range(600)), "nested deeper than 32 levels"),
        ("a: [" + "1," * 100_000 + "]", "more than 5000 values"),
        ("a: " + "9" * 200_000, "too large"),
        ("a: " + "x" * 5_000_000, "larger than 256 KiB"),
        (b"a: " + b"x" * 5_000_000, "larger than 256 KiB"),
        ("é" * (MAX_BYTES // 2 + 1), "larger than 256 KiB"),
    ],
    ids=lambda value: value[:14] if isinstance(value, str) else None,
)
def test_what_would_be_costly_is_refused_quickly(text: str | bytes, said: str) -> None:
    start = time.perf_counter()
    assert said in one(text)[2]
    assert time.perf_counter() - start < 1


def test_the_largest_file_is_read() -> None:
    text = "a: 1\n#" + "x" * (MAX_BYTES - 7) + "\n"
    assert len(text) == MAX_BYTES
    assert parse(text, "f").data == {"a": 1}
    assert "256 KiB" in one(text + " ")[2]


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("", 1, 1, "empty"),
        ("# only a comment\n", 1, 1, "empty"),
        ("- a\n- b\n", 1, 1, "must be a mapping"),
        ("\n\nhello", 3, 1, "must be a mapping"),
        (b"a: 1\nb: \xff", 2, 4, "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, 1, "not UTF-8"),
        ("a: 1\nb: \ud800", 2, 4, "not UTF-8"),
        ("a: 1\nb: x\x00", 2, 5, "U+0000"),
        ("a: \x1b[31m", 1, 4, "U+001B"),
        ("train:\n\tscript: x", 2, 1, "tab where spaces belong | Indent with spaces"),
        ("train:\n  script: x\n\tb: y", 3, 1, "tab where spaces belong"),
        ("a: [1, 2", 2, 1, "not valid YAML"),
        ("a: 'x\nb: c", 2, 5, "not valid YAML"),
        ("a: b: c", 1, 5, "Put a value that contains a colon"),
        ("schedule: @weekly # always", 1, 11, 'Write it in quotes: "@weekly"'),
        ("a: *nowhere", 1, 4, "undefined alias"),
        ("a: 1\n---\nb: 2", 2, 1, "second YAML document"),
        ("a: !!python/object/apply:os.system ['x']", 1, 4, "the tag tag:yaml.org,2002:py"),
        ("a: !!str 5", 1, 4, "the tag tag:yaml.org,2002:str is not accepted"),
        ("!!set {a}", 1, 1, "the tag"),
        ("a: ! 5", 1, 4, "the tag !"),
        ('a: "\\0"', 1, 4, "control character U+0000"),
        ('a: "\\ud800"', 1, 7, "not valid YAML"),
        ("? [a]\n: 1", 1, 3, "a key must be plain text"),
        ("1: x", 1, 1, 'the key `1` is not text | Write "1" in quotes'),
        ("~: x", 1, 1, "the key `~` is not text"),
        ("a:\nb: 1", 1, 1, "`a` has no value"),
        ("a: {b: null}", 1, 5, "`a.b` has no value"),
        ("a: 1\nb: 2\na: 3", 3, 1, "`a` is there twice; first on line 1"),
        ("x:\n  a: 1\n  a: 1", 3, 3, "`x.a` is there twice; first on line 2"),
        ("a: &a {x: 1}\nb:\n  <<: *a", 3, 3, "merge keys (`<<`) are not accepted"),
    ],
)
def test_what_cannot_be_read_is_located(
    text: str | bytes, line: int, column: int, said: str
) -> None:
    found = one(text)
    assert found[:2] == (line, column)
    assert said in found[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no", "Write false, or"),
        ("Off", "Write false, or"),
        ("yes", "Write true, or"),
        ("on", "Write true, or"),
        ("010", "different things"),
        ("08", "different things"),
        ("0o17", "different things"),
        ("0x1F", "different things"),
        ("1_000", "different things"),
        ("12:30", "different things"),
        ("2024-01-01", "different things"),
        ("=", "different things"),
        (".nan", "not a finite number"),
        (".NaN", "not a finite number"),
        (".inf", "not a finite number"),
        ("-.INF", "not a finite number"),
        ("1e999", "too large"),
        ("9223372036854775808", "too large"),
        ("-99999999999999999999999999", "too large"),
        ("{{ ds }}", "starts a template"),
        ('"{{ ds }}"', "starts a template"),
        ("'x {% if y %}'", "starts a template"),
        ("x {# y", "starts a template"),
        ("{% if %}", "starts a template"),
    ],
)
def test_values_that_mislead_are_refused(text: str, said: str) -> None:
    line, column, message = one(f"key:\n- {text}")
    assert (line, column) in ((2, 3), (2, 4))  # of `{% if %}`, the parser reads the brace
    assert said in message
    if text.isalnum() and "finite" not in said and "large" not in said:
        assert parse(f"key: '{text}'", "f").data == {"key": text}


@pytest.mark.parametrize("text", ["on", "no", "{{x}}"])
def test_keys_that_mislead_are_refused(text: str) -> None:
    assert one(f'a: 1\n"{text}": 1' if "{" in text else f"a: 1\n{text}: 1")[:2] == (2, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("3.10", 3.1),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("true", True),
        ("False", False),
        ('"5"', "5"),
        ("'no'", "no"),
        ("adam", "adam"),
        ("y", "y"),
        ("1.2.3", "1.2.3"),
        ("__import__('os')", "__import__('os')"),
        ("path:a#b", "path:a#b"),
        ("{x: [1, a]}", {"x": [1, "a"]}),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_values(text: str, value: object) -> None:
    found = parse(f"key: {text}", "f")
    assert found.problems == {}
    assert found.data == {"key": value}
    assert type(found.data["key"]) is type(value)


def test_everything_has_its_place() -> None:
    text = "\ufeff# comment\na: 1\nb:\n  c: [x, {d: é, e: 2}]\nf: &f\n  g: 1\nh: *f\n"
    found = parse(text, "f")
    assert found.data == {
        "a": 1,
        "b": {"c": ["x", {"d": "é", "e": 2}]},
        "f": {"g": 1},
        "h": {"g": 1},
    }
    assert found.positions.values[()] == (2, 1)
    assert found.positions.keys["b", "c", 1, "e"] == (4, 17)
    assert found.positions.values["b", "c", 1, "e"] == (4, 20)
    assert found.positions.values["b", "c", 0] == (4, 7)
    assert found.positions.keys["h",] == (7, 1)
    assert found.positions.values["h", "g"] == (6, 6)  # what an alias says stands at its anchor
    assert found.written["a",] == "1"


def test_all_refused_values_are_told_at_once() -> None:
    found = parse('a: no\nb: "{{x}}"\nc: .nan\nd:\na: 1\ne: 1_0', "f").problems.values()
    assert [problem.line for problem in found] == [1, 2, 3, 4, 5, 6]

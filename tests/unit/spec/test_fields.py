"""Each type of field: what it takes, what it refuses."""

import pytest
from pydantic import TypeAdapter, ValidationError

from tracklayer.spec import fields


def accepts(field: object, value: object) -> bool:
    try:
        TypeAdapter(field).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (
            fields.Name,
            ["a", "digits-2", "a" * 63],
            ["", "A", "2a", "-a", "a_b", "a.b", "a/b", "a b", "a\n", "é", "a" * 64, "../a", "a²"],
        ),
        (
            fields.TemplateName,
            ["train-and-deploy@1", "t@12"],
            ["t", "t@", "t@0", "t@01", "T@1", "t@x", "../t@1", "t@1\n", "t@\u0661"],
        ),
        (fields.SourceName, ["data", "a_b-c2"], ["", "2a", "_a", "A", "a.b", "a/b", "a\n"]),
        (
            fields.Handle,
            ["path:data/x y.csv", "hf://a/b@c", "git+https://h/r.git@v1", "s3://b/p"],
            ["", "data", ":x", "path:", "Path:x", "path:a\nb", "path:a\0", "__import__('os')"],
        ),
        (
            fields.HyperparameterName,
            ["lr", "learning-rate", "A.b_c-1"],
            ["", "1a", "-a", "a b", "a=b", "a\n", "x" * 65, "__import__('os')"],
        ),
        (fields.MetricName, ["accuracy", "val/loss", "f1_macro"], ["", "1a", "a b", "a\n", "$(x)"]),
        (
            fields.Script,
            ["train.py", "code/train.py", "a..b.py", "my code/run-1.py"],
            [
                "",
                "train",
                "train.sh",
                ".py",
                "a/.py",
                "/train.py",
                "../train.py",
                "a/../train.py",
                "./train.py",
                "a//b.py",
                "-c.py",
                "a/-c.py",
                "~/a.py",
                "a\\b.py",
                "a;b.py",
                "a\0.py",
                "a\n.py",
                "train.py\n",
                "__import__('os').py",
                "x" * 1100 + ".py",
            ],
        ),
        (fields.PythonVersion, ["3.11", "3.13.2"], ["", "3", "2.7", "3.x", "3.11\n", ">=3.11"]),
        (
            fields.Asset,
            ["a/model", "a-b/train_data"],
            ["", "a", "a/", "/model", "a/b/c", "A/model"],
        ),
        (
            fields.Requirement,
            ["torch==2.13.0", "pandas", "a[b]>=1,<2; python_version > '3'", "a @ https://h/a.whl"],
            ["", "torch=1", "-r x.txt", "--index-url http://x", "-e .", "./a", "a b", "a\nb"],
        ),
        (
            fields.MetricPattern,
            ["loss=([0-9.]+)", "(?:a|b): (\\d+)"],
            ["", "loss=", "(a)(b)", "(", "(a){99999999999}", "(" * 400 + ")" * 400, "(x)" * 200],
        ),
        (
            fields.Cron,
            [*fields.PRESETS, "0 3 * * 1", "*/5 0-6,12 1 jan sun", "0 0 L * *", "0 0 29 2 *"],
            [
                "",
                "daily",
                "@dayly",
                "@reboot",
                "* * * *",
                "* * * * * *",
                "61 * * * *",
                "R R * * *",
                "H * * * *",
                "R(0-9) * * * *",
                "*/0 * * * *",
                "0 0 31 2 *",
                "0 0 1-400000000 * *",
                "__import__('os')",
            ],
        ),
    ],
    ids=lambda value: None,
)
def test_texts(field: object, good: list[str], bad: list[str]) -> None:
    assert [value for value in good if not accepts(field, value)] == []
    assert [value for value in bad if accepts(field, value)] == []
    assert not accepts(field, 1)
    assert not accepts(field, None)


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("4GiB", 4 * 1024**3, "4GiB"),
        ("512MiB", 512 * 1024**2, "512MiB"),
        ("2GB", 2 * 10**9, "2GB"),
        ("1.5 GiB", 1536 * 1024**2, "1536MiB"),
        ("16777217B", 16777217, "16777217B"),
        ("1024GiB", 1024**4, "1TiB"),
        ("20000KB", 20_000_000, "20MB"),
    ],
)
def test_sizes(text: str, size: int, written: str) -> None:
    memory = TypeAdapter(fields.Memory)
    assert memory.validate_python(text, strict=True) == size
    assert memory.dump_python(size) == written
    assert memory.validate_python(written, strict=True) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "4",
        4,
        4.5,
        True,
        None,
        "4G",
        "4gib",
        "-4GiB",
        "GiB",
        "15MiB",
        "65TiB",
        "4GiB\n",
        "\u0664GiB",
    ],
)
def test_no_sizes(value: object) -> None:
    assert not accepts(fields.Memory, value)


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("1h", 3600, "1h"),
        ("30m", 1800, "30m"),
        ("90s", 90, "1m30s"),
        ("1h30m", 5400, "1h30m"),
        ("2h0m5s", 7205, "2h5s"),
        ("8760h", 8760 * 3600, "8760h"),
    ],
)
def test_durations(text: str, seconds: int, written: str) -> None:
    duration = TypeAdapter(fields.Duration)
    assert duration.validate_python(text, strict=True) == seconds
    assert duration.dump_python(seconds) == written
    assert duration.validate_python(written, strict=True) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        60,
        True,
        None,
        "0s",
        "h",
        "1 h",
        "30m1h",
        "1d",
        "-1h",
        "1.5h",
        "8761h",
        "1h\n",
        "\u0661h",
    ],
)
def test_no_durations(value: object) -> None:
    assert not accepts(fields.Duration, value)


def test_suggestions() -> None:
    known = ["train", "evaluate"]
    assert fields.suggest("trian", known) == "Did you mean `train`? Allowed: train, evaluate."
    assert fields.suggest("xyz", known) == "Allowed: train, evaluate."
    assert fields.suggest("x", []) == "Allowed: none."
    many = fields.suggest("n77", [f"n{i}" for i in range(100)])
    assert many.startswith("Did you mean `n77`? Allowed: n0, n1,")
    assert many.endswith("n19, ….")

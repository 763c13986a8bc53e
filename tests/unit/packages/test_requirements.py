from __future__ import annotations

import pytest

from tracklayer.errors import PackagesError
from tracklayer.packages.requirements import check

COMMIT = "a" * 40
DIGEST = "b" * 64


def test_requirements_come_in_one_form() -> None:
    lines = [" Torch == 2.13.0", "pandas>=2,<3", "torch==2.13.0", "six ; python_version>='3'"]
    assert check(lines) == ["pandas<3,>=2", 'six; python_version >= "3"', "torch==2.13.0"]
    assert check([]) == []


@pytest.mark.parametrize(
    "line",
    [
        f"mine @ git+https://host/repo.git@{COMMIT}",
        f"mine @ git+https://host/repo.git@{COMMIT}#subdirectory=x",
        f"mine @ https://host/mine-1.0-py3-none-any.whl#sha256={DIGEST}",
    ],
)
def test_a_pinned_address_is_allowed(line: str) -> None:
    assert len(check([line])) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--index-url https://host/simple", "is an option"),
        ("-e .", "is an option"),
        ("-r more.txt", "is an option"),
        ("./folder", "is a path"),
        ("/folder/x.whl", "is a path"),
        ("~/x", "is a path"),
        ("x-1.0-py3-none-any.whl", "is a path"),
        ("file:///x", "is a path"),
        ("", "is not a requirement"),
        ("a b", "is not a requirement"),
        ("torch=2.13", "is not a requirement"),
        ("{{ x }}", "is not a requirement"),
        ("six\n--index-url x", "is not a requirement"),
        ("mine @ file:///x", "not allowed"),
        (f"mine @ http://host/x.whl#sha256={DIGEST}", "not allowed"),
        (f"mine @ git+ssh://git@host/repo@{COMMIT}", "holds a secret"),
        (f"mine @ git+file:///repo@{COMMIT}", "not allowed"),
        ("mine @ https://host/x.whl", "is not pinned"),
        ("mine @ https://host/x.whl#sha256=abc", "is not pinned"),
        ("mine @ git+https://host/repo.git@main", "is not pinned"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(line: str, problem: str) -> None:
    with pytest.raises(PackagesError, match=problem) as raised:
        check(["six", line])
    assert raised.value.hint


def test_a_secret_in_an_address_is_not_repeated() -> None:
    with pytest.raises(PackagesError, match="'mine' holds a secret") as raised:
        check([f"mine @ git+https://user:s3cret@host/repo.git@{COMMIT}"])
    assert "s3cret" not in str(raised.value)

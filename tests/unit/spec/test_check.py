"""A project beside its files, and projects beside each other."""

from pathlib import Path

import pytest

from tracklayer.settings import resource
from tracklayer.spec import check_project, find_cycle, loads

SHIPPED = [resource("dags/templates")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    (folder / "data").mkdir(parents=True)
    (folder / "data/optdigits.csv.gz").touch()
    (folder / "train.py").touch()
    return folder


def test_a_project_that_is_whole(digits: str, project: Path) -> None:
    assert check_project(loads(digits), project, templates=SHIPPED) == []
    assert check_project(loads(digits), project, targets=["local"]) == []


def found(text: str, folder: Path, **more: object) -> list[tuple[int, int, str]]:
    problems = check_project(loads(text), folder, **({"templates": SHIPPED} | more))
    return [(p.line, p.column, f"{p.message} | {p.hint}") for p in problems]


def test_everything_that_is_missing_in_file_order(digits: str, project: Path) -> None:
    (project / "train.py").rename(project / "training.py")
    (project / "data/optdigits.csv.gz").rename(project / "data/optdigits.csv")
    text = digits.replace("deploy@1", "deploy@2").replace("target: local", "target: locl")
    assert found(text, project, targets=["local"]) == [
        (
            3,
            11,
            "there is no template `train-and-deploy@2` | Did you mean `train-and-deploy@1`? "
            "Allowed: deploy-pretrained@1, train-and-deploy@1.",
        ),
        (4, 9, "there is no target `locl` | Did you mean `local`? Allowed: local."),
        (
            6,
            9,
            "there is no file or folder `data/optdigits.csv.gz` in the project | "
            "Did you mean `data/optdigits.csv`? There are: data/optdigits.csv.",
        ),
        (
            9,
            11,
            "there is no script `train.py` in the project | "
            "Did you mean `training.py`? There are: training.py.",
        ),
    ]


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "data/../../x", "data/../train.py", "link"]
)
def test_a_source_outside_of_the_project(digits: str, project: Path, path: str) -> None:
    (project.parent / "x").touch()
    (project / "link").symlink_to(project.parent / "x")
    ((line, column, said),) = found(digits.replace("data/optdigits.csv.gz", path), project)
    assert (line, column) == (6, 9)
    assert "lies outside of the project" in said


@pytest.mark.parametrize(
    ("path", "said"), [("loop/x", "looked at"), ("x" * 300, "looked at"), ("train.py/x", "no file")]
)
def test_a_source_that_cannot_be_looked_at(
    digits: str, project: Path, path: str, said: str
) -> None:
    (project / "loop").symlink_to("loop")
    (problem,) = found(digits.replace("data/optdigits.csv.gz", path), project)
    assert problem[:2] == (6, 9)
    assert said in problem[2]


def test_a_script_that_is_a_link_out_of_the_project_or_a_folder(digits: str, project: Path) -> None:
    (project / "train.py").unlink()
    (project / "train.py").symlink_to("/etc/passwd")
    assert "lies outside of the project" in found(digits, project)[0][2]
    (project / "train.py").unlink()
    (project / "train.py").mkdir()
    assert "there is no script" in found(digits, project)[0][2]


def test_the_template_is_checked_beside_the_spec(digits: str, project: Path) -> None:
    text = digits.replace("template: train-and-deploy", "template: deploy-pretrained")
    assert [(line, said.split(" | ")[0]) for line, _, said in found(text, project)] == [
        (3, "the template deploy-pretrained@1 needs `sources.model`"),
        (7, "`packages` is not used by the template deploy-pretrained@1"),
        (8, "`train` is not used by the template deploy-pretrained@1"),
        (15, "`evaluate` is not used by the template deploy-pretrained@1"),
    ]


def test_a_broken_template_is_located_in_its_own_file(
    digits: str, project: Path, tmp_path: Path
) -> None:
    path = tmp_path / "train-and-deploy.v1.yaml"
    path.write_text("steps: {a: {run: nope}}")
    (problem,) = check_project(loads(digits), project, templates=[tmp_path])
    assert (problem.file, problem.line, problem.column) == (str(path), 1, 18)


def specs(**after: list[str]) -> dict[str, object]:
    return {
        name: loads(
            f"name: {name}\ntemplate: t@1\n"
            + (f"schedule: {{after: [{', '.join(assets)}]}}" if assets else "")
        )
        for name, assets in after.items()
    }


@pytest.mark.parametrize(
    ("after", "cycle"),
    [
        ({"a": [], "b": ["a/model"], "c": ["a/model", "b/data"]}, None),
        ({"a": ["b/model"], "b": ["a/model"]}, ["a", "b"]),
        ({"a": [], "d": ["c/model"], "c": ["b/x", "a/model"], "b": ["d/model"]}, ["b", "d", "c"]),
        ({"a": ["gone/model"]}, None),
        ({"a": ["b/model"], "b": ["c/model"], "c": ["b/model"]}, ["b", "c"]),
        ({}, None),
    ],
)
def test_projects_that_wait_for_each_other(
    after: dict[str, list[str]], cycle: list[str] | None
) -> None:
    found = specs(**after)
    assert find_cycle(found) == cycle
    backwards = dict(reversed(list(found.items())))
    assert find_cycle(backwards) == cycle
    for name, following in zip(cycle or [], (cycle or [])[1:] + (cycle or [])[:1], strict=True):
        assert following in {asset.split("/")[0] for asset in after[name]}

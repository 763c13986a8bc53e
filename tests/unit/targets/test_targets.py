"""Targets: one contract for all Terraform roots."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracklayer.errors import PlatformError, TerraformError
from tracklayer.settings import resource
from tracklayer.targets import Host, Outputs, known, terraform_root

GOOD = {
    "address": "10.0.0.5",
    "port": 2222,
    "user": "ubuntu",
    "python": "/usr/bin/python3",
    "connection": "ssh",
    "accelerators": ["nvidia"],
    "hourly_cost": 1.2,
}


def names(root: Path, kind: str) -> dict[str, str]:
    """The blocks of a kind in a root: name -> type, if it has one."""
    text = "\n".join(path.read_text() for path in sorted(root.glob("*.tf")))
    blocks = re.findall(rf'^{kind} "([^"]+)" \{{$(.*?)^\}}$', text, re.M | re.S)
    return {
        name: found[1] if (found := re.search(r"^  type\s+= (.+)$", body, re.M)) else ""
        for name, body in blocks
    }


def test_the_roots_are_alike() -> None:
    local = terraform_root("local")
    assert names(local, "variable")["memory"] == "number"
    assert names(local, "output") == {"hosts": ""}
    for folder in resource("infra/terraform").iterdir():
        assert folder.name in known()
        assert names(folder, "variable") == names(local, "variable"), folder.name
        assert names(folder, "output") == names(local, "output"), folder.name


def test_the_roots_give_every_field_of_a_host() -> None:
    for name in known():
        text = "".join(path.read_text() for path in terraform_root(name).glob("*.tf"))
        assert [field for field in Host.model_fields if not re.search(rf"\b{field}\b", text)] == []


def test_an_unknown_target() -> None:
    with pytest.raises(PlatformError, match=r"Did you mean local\?.*local"):
        terraform_root("locl")
    with pytest.raises(PlatformError, match="there is no target"):
        terraform_root("../../etc")


def test_good_outputs() -> None:
    outputs = Outputs.check({"hosts": [GOOD, {**GOOD, "user": None}]})
    assert outputs.hosts[0].port == 2222
    assert outputs.hosts[1].user is None


@pytest.mark.parametrize(
    ("hosts", "where"),
    [
        (None, "hosts"),
        ([], "hosts"),
        ([{**GOOD, "port": 0}], "hosts.0.port"),
        ([{**GOOD, "port": "no"}], "hosts.0.port"),
        ([GOOD, {**GOOD, "python": "python3"}], "hosts.1.python"),
        ([{**GOOD, "hourly_cost": float("nan")}], "hosts.0.hourly_cost"),
        ([{**GOOD, "password": "hunter2"}], "hosts.0.password"),
        ([{key: value for key, value in GOOD.items() if key != "address"}], "hosts.0.address"),
    ],
)
def test_wrong_outputs(hosts: object, where: str) -> None:
    with pytest.raises(TerraformError) as caught:
        Outputs.check({"hosts": hosts})
    assert where in caught.value.message
    assert "hunter2" not in str(caught.value)

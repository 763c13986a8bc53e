"""The folder of a new project: a copy of a small one that runs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from tracklayer.errors import Problem, ProjectError, SpecError
from tracklayer.spec import json_schema, loads

SCAFFOLDS = Path(__file__).parent / "scaffolds"
SCHEMA_FILE = ".tracklayer.schema.json"


def scaffold(name: str, template: str, parent: Path) -> Path:
    """Make the folder ``name`` in ``parent``.

    :param template: such as ``train-and-deploy@1``.
    :returns: the folder; it is complete or not there.
    :raises SpecError: a name that a project may not have, or no such template.
    :raises ProjectError: something of that name is there, or the folder cannot be written.
    """
    source = SCAFFOLDS / template.partition("@")[0]
    known = sorted(f"{path.name}@1" for path in SCAFFOLDS.iterdir() if path.is_dir())
    if template not in known:
        message = f"there is no new project for the template `{template}`"
        raise SpecError([Problem("--template", 1, 1, message, f"Known: {', '.join(known)}.")])
    text = (source / "tracklayer.yaml").read_text()
    text = text.replace("name: example\n", f"name: {name}\n", 1)
    spec = loads(f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}", "NAME")
    folder = parent / spec.name
    if os.path.lexists(folder):
        hint = "Choose another name, or delete it first."
        raise ProjectError(f"{folder} exists already.", hint=hint)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as scratch:
            made = Path(scratch) / name
            shutil.copytree(source, made, ignore=shutil.ignore_patterns("__pycache__"))
            (made / "tracklayer.yaml").write_text(
                f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}"
            )
            (made / SCHEMA_FILE).write_text(json.dumps(json_schema(), indent=2) + "\n")
            made.rename(folder)
    except OSError as error:
        raise ProjectError(f"{folder} cannot be written: {error.strerror}.") from None
    return folder

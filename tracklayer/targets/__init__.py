"""Where steps run. A target is a folder of ``infra/terraform`` that keeps to one contract."""

from __future__ import annotations

import difflib
from pathlib import Path

from tracklayer.errors import PlatformError
from tracklayer.settings import resource
from tracklayer.targets.outputs import Host, Outputs

__all__ = ["Host", "Outputs", "known", "terraform_root"]


def known() -> list[str]:
    """The names of all targets."""
    return sorted(path.parent.name for path in resource("infra/terraform").glob("*/outputs.tf"))


def terraform_root(target: str) -> Path:
    """The Terraform root of a target.

    :raises PlatformError: there is no such target; the message names those there are.
    """
    names = known()
    if target not in names:
        near = difflib.get_close_matches(target, names, 1)
        raise PlatformError(
            f"there is no target {target!r}",
            hint=(f"Did you mean {near[0]}? " if near else "") + f"Targets: {', '.join(names)}",
        )
    return resource("infra/terraform") / target

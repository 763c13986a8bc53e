"""``python -m tracklayer.serving.proof FOLDER``: the golden request of a model that brings code.

Who registers a model holds keys of the platform, which are not for the model's code to see.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from tracklayer.environment import passed_on
from tracklayer.errors import ModelError
from tracklayer.serving.verification import Golden, golden_here


def golden_apart(folder: Path, allow: Collection[str]) -> Golden:
    """See :func:`tracklayer.serving.verification.golden`.

    :raises ModelError: as there, or the process ended otherwise.
    """
    command = [sys.executable, "-P", "-m", __name__, str(folder), *sorted(allow)]
    # Whatever the code prints goes where this process's errors go.
    done = subprocess.run(
        command, env=passed_on(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise ModelError(
            f"the model's code ended its process, with exit code {done.returncode}",
            hint="What it printed is in the log.",
        ) from None
    if "error" in found:
        raise ModelError(found["error"], hint=found["hint"])
    return Golden.from_dict(found)


def main(arguments: list[str]) -> None:
    """Write the golden request, or the error, as JSON."""
    folder, *allow = arguments
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Descriptor 1 is for the answer alone, whoever prints.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = golden_here(Path(folder), allow).to_dict()
    except ModelError as error:
        found = {"error": error.message, "hint": error.hint}
    with answer:
        json.dump(found, answer)


if __name__ == "__main__":
    main(sys.argv[1:])

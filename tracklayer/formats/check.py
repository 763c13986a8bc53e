"""Which files are refused, and what their owner can do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO

from tracklayer.errors import SourceError
from tracklayer.formats.content import Format, Risk, shown
from tracklayer.formats.models import ONNX, SAFETENSORS
from tracklayer.formats.recognition import recognise

ALLOW: dict[Risk, str] = {"pickle": "pickle", "code": "remote-code", "unknown": "unknown"}
"""Risk -> the word with which a project allows it."""

_REASONS: dict[Risk, str] = {
    "pickle": "loading it can run any code",
    "code": "it is code, or names code, of others",
    "unknown": "nobody can say what reading it does",
}
_SHOWN = 10

_UNASKED: dict[str, frozenset[str]] = {
    # The project's own: whoever reviews the project reviews them.
    "path": frozenset(ALLOW.values()),
    # Code is what git is for, at a commit that the record names; models are not.
    "git": frozenset({ALLOW["code"], ALLOW["unknown"]}),
}


def policy(scheme: str) -> frozenset[str]:
    """What files of a scheme (``hf``, ``git+https``, ...) may be without being allowed in the spec;
    words of :data:`ALLOW`."""
    return _UNASKED.get(scheme.partition("+")[0], frozenset())


def check(
    files: Iterable[tuple[str, Callable[[], BinaryIO]]], *, allow: frozenset[str]
) -> dict[str, str]:
    """The name of each file's format, by its path; or an error that names the refused ones.

    :param files: path, and what opens the file for reading with random access.
    :param allow: words of :data:`ALLOW`; the risks that are taken.
    :raises SourceError: some are not allowed.
    :raises OSError: a file cannot be read.
    """
    found: dict[str, Format] = {}
    for path, opened in files:
        with opened() as stream:
            found[path] = recognise(stream, path)
    refused = {
        path: form for path, form in found.items() if form.risk and ALLOW[form.risk] not in allow
    }
    if refused:
        raise SourceError(_message(refused, len(found)), hint=_hint(refused, found))
    return {path: form.name for path, form in found.items()}


def _message(refused: dict[str, Format], files: int) -> str:
    lines = [
        f"  {shown(path)}: {form.name}; {_REASONS[form.risk]}"
        for path, form in sorted(refused.items())[:_SHOWN]
        if form.risk
    ]
    if len(refused) > _SHOWN:
        lines.append(f"  and {len(refused) - _SHOWN} more")
    return "\n".join([f"{len(refused)} of {files} files are refused, by their content:", *lines])


def _hint(refused: dict[str, Format], found: dict[str, Format]) -> str:
    words = sorted({ALLOW[form.risk] for form in refused.values() if form.risk})
    safe = next((path for path, form in found.items() if form in (SAFETENSORS, ONNX)), None)
    here = f" ({shown(safe)} is one)" if safe and "pickle" in words else ""
    return (
        "Leave them out, or take the same in a format that is only data: safetensors or ONNX for a "
        f"model{here}, Parquet or CSV for a table. To take them as they are, write "
        f"`allow: [{', '.join(words)}]` under the source in tracklayer.yaml, and pin its handle to "
        "a commit, a version or a digest."
    )

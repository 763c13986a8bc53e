"""What one file is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import BinaryIO

from tracklayer.formats import data, models
from tracklayer.formats.archives import tar_archive, zip_archive
from tracklayer.formats.compressed import compressed
from tracklayer.formats.content import Content, Format, SeekableContent, UnreadableError
from tracklayer.formats.data import hdf5
from tracklayer.formats.pickles import is_pickle
from tracklayer.formats.text import code, text

_OUTLINES = (
    *(models.safetensors, models.onnx, models.saved_model, models.sentencepiece, models.gguf),
    *(models.other, data.npy, data.columns, data.sqlite, data.idx, data.tfrecord, data.mp3),
    data.beginning,
)
_DEEPEST = 3
"""Archives in one another that are looked into."""


def recognise(stream: BinaryIO, name: str) -> Format:
    """What a file is, by its content; its name only adds a risk, or tells one text from another.

    What makes a file dangerous is looked for in every file, whatever else it looks like; only then
    is it asked which of the known formats it has. Nothing of it is loaded or run.

    :param stream: seekable; its head, its tail and what an outline leads to are read.
    :param name: the file's path or name.
    :raises OSError: the stream cannot be read.
    """
    return _recognise(SeekableContent(stream), name, depth=0)


def recognise_file(file: Path) -> Format:
    """What a file on the disk is.

    :raises OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return recognise(stream, file.name)


def _recognise(content: Content, name: str, *, depth: int) -> Format:
    if not content.head:
        return Format("empty file")
    if is_pickle(content):
        return Format("pickle", "pickle")

    def inside(member: Content, path: str) -> Format:
        if depth == _DEEPEST:
            return Format("something too deep", "unknown")
        return _recognise(member, path, depth=depth + 1)

    try:
        tried = (
            *(zip_archive(content, inside), tar_archive(content, inside), hdf5(content)),
            *(compressed(content, name, inside), code(content, name)),
        )
        if found := [form for form in tried if form]:
            return functools.reduce(
                lambda worst, form: form if form.worse_than(worst) else worst, found
            )
        known = next(filter(None, (outline(content) for outline in _OUTLINES)), None)
        return known or text(content, name) or Format("binary", "unknown")
    except UnreadableError as reason:
        return Format(str(reason), "unknown")

"""The same weights in several formats, of which safetensors is enough.

Repositories of models often hold their weights once for each framework: as pickles
(``pytorch_model.bin``, ``model.ckpt``), HDF5 (``tf_model.h5``), MessagePack
(``flax_model.msgpack``) and safetensors (``model.safetensors``); each perhaps in shards
(``model-00001-of-00003.safetensors``) with an index beside them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_WEIGHTS = re.compile(
    r"(?P<folder>(?:.*/)?)(?P<stem>[^/]+?)"
    r"(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5}))?(?P<variant>\.[a-z]+\d+)?"
    r"\.(?P<kind>safetensors|bin|pt|pth|ckpt|pkl|h5|msgpack|ot)"
    r"(?P<index>\.index(?P<late>\.[a-z]+\d+)?\.json)?"
)
# What the frameworks of transformers call what is "model" in safetensors.
_FAMILY = re.compile(r"(pytorch|tf|flax|rust)_model")


def twins(paths: Iterable[str], include: Sequence[str] = ()) -> list[str]:
    """The files whose weights are there as safetensors too, whole and in the same folder.

    :param paths: of all files of a repository.
    :param include: the patterns that chose them (fnmatch). A file is none of the twins if one of
        the patterns means it and not its safetensors: then it was asked for.
    """
    safe: dict[str, list[re.Match[str]]] = defaultdict(list)
    others: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if found := _WEIGHTS.fullmatch(path):
            name = found["folder"] + _FAMILY.sub("model", found["stem"])
            name += found["variant"] or found["late"] or ""
            if found["kind"] != "safetensors":
                others[name].append(path)
            elif not found["index"]:
                safe[name].append(found)

    def asked_for(path: str, twin: str) -> bool:
        return any(fnmatchcase(path, given) and not fnmatchcase(twin, given) for given in include)

    return sorted(
        path
        for name, found in others.items()
        if _whole(safe[name])
        for path in found
        if not asked_for(path, safe[name][0].string)
    )


def _whole(files: Sequence[re.Match[str]]) -> bool:
    """Whether one file holds all, or all its shards are there."""
    shards = [file for file in files if file["shards"]]
    return len(files) > len(shards) or any(
        len(shards) == int(file["shards"]) for file in shards[:1]
    )

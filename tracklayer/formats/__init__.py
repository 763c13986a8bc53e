"""What a file is, told by its content, and whether anybody may be given it unasked.

``recognise`` says what one file is, ``check`` refuses what must not come from elsewhere without
the project's consent, and ``policy`` says what a kind of source may bring without it.

A suffix proves nothing and scanners of pickles are bypassed; so a format is known or it is refused,
and what could run code is looked for in every file, whatever else that file looks like.
"""

from tracklayer.formats.check import ALLOW, check, policy
from tracklayer.formats.content import Format, Risk
from tracklayer.formats.models import CUT_ONNX, ONNX, SAFETENSORS
from tracklayer.formats.recognition import recognise, recognise_file

__all__ = [
    "ALLOW",
    "CUT_ONNX",
    "ONNX",
    "SAFETENSORS",
    "Format",
    "Risk",
    "check",
    "policy",
    "recognise",
    "recognise_file",
]

"""The model server: what a training script left, behind the Open Inference Protocol.

``recognise`` says by content what a folder holds, ``python -m tracklayer.serving`` serves it, and
``golden`` gives the request and the answer that a deployment must pass before it takes traffic.
"""

from tracklayer.serving.formats import ModelFormat, recognise
from tracklayer.serving.verification import Golden, golden

__all__ = ["Golden", "ModelFormat", "golden", "recognise"]

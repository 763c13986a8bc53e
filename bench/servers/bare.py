"""An onnxruntime session and nothing else, on one thread.

``python bare.py MODEL REQUEST``, the request as ``.npz``
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort  # noqa: TID253 - a program of its own, which needs it at once
from turns import take_turns

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = dict(np.load(sys.argv[2]))
take_turns(lambda: session.run(None, feeds)[0])

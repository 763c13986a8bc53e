"""The job contract: SageMaker's training container contract, under a folder of the job's own.

Sources: "How Amazon SageMaker AI Provides Training Information" (developer guide), and the
sagemaker-training toolkit for the variables and the form of the arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracklayer.errors import JobError
from tracklayer.runtimes.job import Job, Value

_HOST = "algo-1"
_NETWORK = "lo"
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Tree:
    """Where each thing of the contract lies. In a container ``root`` is ``/opt/ml``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.code = root / "code"
        self.input = root / "input"
        self.data = root / "input" / "data"
        self.config = root / "input" / "config"
        self.model = root / "model"
        self.output = root / "output"
        self.output_data = root / "output" / "data"
        self.failure = root / "output" / "failure"
        self.checkpoints = root / "checkpoints"

    def make(self, job: Job) -> None:
        """Makes the folders, links the inputs and writes the configuration files.

        :raises JobError: an input does not exist or has an impossible name.
        """
        for folder in (self.data, self.config, self.model, self.output_data, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        for name, source in job.inputs.items():
            if not _CHANNEL.fullmatch(name):
                raise JobError(
                    f"job {job.name}: {name!r} cannot be the name of an input",
                    hint="letters, digits, '.', '_' and '-', at most 64",
                )
            if not source.exists():
                raise JobError(f"job {job.name}: its input {name!r} is not there: {source}")
            channel = self.data / name
            if source.is_file():
                channel.mkdir()
                channel = channel / source.name
            channel.symlink_to(source.absolute())
        for file, content in (
            ("hyperparameters.json", {k: _text(v) for k, v in job.hyperparameters.items()}),
            ("inputdataconfig.json", _data_config(job)),
            ("resourceconfig.json", _resource_config()),
        ):
            (self.config / file).write_text(json.dumps(content, indent=1), encoding="utf-8")


def arguments(hyperparameters: Mapping[str, Value]) -> list[str]:
    """Hyperparameters as a command line: ``--name value``, ``-n value`` for one letter; by name."""
    found: list[str] = []
    for name, value in sorted(hyperparameters.items()):
        found += [f"-{name}" if len(name) == 1 else f"--{name}", _text(value)]
    return found


def variables(job: Job, *, argv: Sequence[str], cpus: int) -> dict[str, str]:
    """The ``SM_*`` variables of a job whose tree is :class:`Tree` of its folder."""
    tree = Tree(job.folder)
    script = next((part for part in argv if part.endswith(".py")), argv[0])
    hyperparameters = dict(job.hyperparameters)
    channels = sorted(job.inputs)
    values: dict[str, Any] = {
        "MODEL_DIR": str(tree.model),
        "MODULE_DIR": str(tree.code),
        "MODULE_NAME": Path(script).stem,
        "USER_ENTRY_POINT": script,
        "INPUT_DIR": str(tree.input),
        "INPUT_CONFIG_DIR": str(tree.config),
        "OUTPUT_DIR": str(tree.output),
        "OUTPUT_DATA_DIR": str(tree.output_data),
        "CHANNELS": channels,
        "HPS": hyperparameters,
        "USER_ARGS": arguments(hyperparameters),
        "INPUT_DATA_CONFIG": _data_config(job),
        "RESOURCE_CONFIG": _resource_config(),
        "NUM_CPUS": cpus,
        "NUM_GPUS": job.gpus,
        "CURRENT_HOST": _HOST,
        "HOSTS": [_HOST],
        "NETWORK_INTERFACE_NAME": _NETWORK,
        "LOG_LEVEL": 20,
    }
    values["TRAINING_ENV"] = {
        **{name.lower(): value for name, value in values.items() if name != "HPS"},
        "hyperparameters": hyperparameters,
        "channel_input_dirs": {name: str(tree.data / name) for name in channels},
        "job_name": job.name,
    }
    found = {f"SM_{name}": _text(value) for name, value in values.items()}
    for channel in channels:
        found |= _named("SM_CHANNEL_", channel, str(tree.data / channel))
    for name, value in hyperparameters.items():
        found |= _named("SM_HP_", name, _text(value))
    return found | {"TRAINING_JOB_NAME": job.name}


def _named(prefix: str, name: str, value: str) -> dict[str, str]:
    # The toolkit keeps a dash, which no shell can read; scripts of both habits exist.
    return {prefix + name.upper(): value, prefix + name.upper().replace("-", "_"): value}


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _data_config(job: Job) -> dict[str, dict[str, str]]:
    channel = {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    return dict.fromkeys(sorted(job.inputs), channel)


def _resource_config() -> dict[str, object]:
    return {"current_host": _HOST, "hosts": [_HOST], "network_interface_name": _NETWORK}

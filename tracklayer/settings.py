"""Every setting of the platform, once, and where each thing lies in its home.

A setting is read from the environment (``TRACKLAYER_<NAME>``), then from ``settings.json`` in the
home, then from its default.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tracklayer.errors import PlatformError
from tracklayer.files import write_text


def default_home() -> Path:
    """The user's data folder (XDG base directory specification)."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "tracklayer"


class Settings(BaseSettings):
    """What a person can change about one platform on one machine."""

    model_config = SettingsConfigDict(env_prefix="TRACKLAYER_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="Folder of all state")
    host: str = Field("127.0.0.1", description="Address that every server of the platform binds")
    airflow_port: int = Field(8080, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    gateway_port: int = Field(8000, ge=1, le=65535)
    gateway_grpc_port: int | None = Field(
        None, ge=0, le=65535, description="0: no gRPC; default: the port after the gateway's"
    )
    gateway_address: str | None = Field(
        None, description="Address by which callers reach the gateway, such as https://models.org"
    )
    gateway_access: Literal["open", "keys"] = Field(
        "open", description="keys: whoever asks a model needs a key; a project can ask for the same"
    )
    gateway_proxy: Literal["embedded", "haproxy"] = Field(
        "embedded", description="haproxy: one that is installed here takes the connections"
    )
    gateway_tls_cert: Path | None = Field(
        None, description="Certificate with its chain (PEM): the gateway then speaks HTTPS only"
    )
    gateway_tls_key: Path | None = Field(
        None, description="Key of the certificate (PEM); default: in the certificate's file"
    )
    repository: str | None = Field(
        None, description="Git remote with the projects; default: a bare repository in the home"
    )
    branch: str = Field("main", description="Branch of the repository that is live")
    templates: Path | None = Field(None, description="Folder of pipeline templates of your own")
    parallelism: int = Field(4, ge=1, description="Tasks that run at the same time")
    store_key: str | None = Field(
        None,
        description="Where the keys of the store are: file:<path>, env:<variable>, "
        "airflow:<connection>, aws-kms:<key>, none; default: a file in the home",
    )
    store_quota: ByteSize | None = Field(
        None, description="How much the store may hold before cached sources are removed: 50GiB"
    )
    private: Path | None = Field(
        None, description="Folder for what is decrypted; default: memory, else the home"
    )
    offline: bool = Field(False, description="Fetch nothing: take every source from the store")
    torch_backend: str | None = Field(
        None, description="uv's --torch-backend; default: cpu where there is no accelerator"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(os.environ.get("TRACKLAYER_HOME") or default_home()).expanduser()
        stored = JsonConfigSettingsSource(settings_cls, json_file=home / "settings.json")
        return init_settings, env_settings, stored

    def remember(self) -> None:
        """Write the settings into the home, so that later commands need no variables again."""
        values = self.model_dump(mode="json", exclude={"home"}, exclude_defaults=True)
        write_text(self.home / "settings.json", json.dumps(values, indent=2))

    # Where each thing lies. A name a folder, so that nobody writes a path by hand.

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder: configuration, database, task logs, bundles."""
        return self.home / "airflow"

    @property
    def repository_url(self) -> str:
        """The git remote with the projects."""
        if self.repository is None:
            return str(self.home / "projects.git")
        if ":" in self.repository:  # an address, or host:path as ssh has it
            return self.repository
        return str(Path(self.repository).expanduser().absolute())

    @property
    def mirror(self) -> Path:
        """A private copy of the repository of projects; it may be deleted at any time."""
        return self.home / "mirror"

    @property
    def store(self) -> Path:
        """Content-addressed artifacts."""
        return self.home / "store"

    @property
    def store_key_location(self) -> str:
        """Where the keys of the store are."""
        return self.store_key or f"file:{self.home / 'keys' / 'store'}"

    @property
    def environments(self) -> Path:
        """Virtual environments, shared by the digest of their lock."""
        return self.home / "environments"

    @property
    def runs(self) -> Path:
        """One folder a run: ``<project>/<run>/`` with the run record and the jobs."""
        return self.home / "runs"

    @property
    def state(self) -> Path:
        """Terraform state, one folder a project and target; owner-only."""
        return self.home / "state"

    @property
    def mlflow_home(self) -> Path:
        """MLflow's database and artifacts."""
        return self.home / "mlflow"

    @property
    def logs(self) -> Path:
        """Logs of the platform's processes and of the services."""
        return self.home / "logs"

    @property
    def sockets(self) -> Path:
        """Unix sockets: supervisor, gateway administration, model servers; owner-only.

        Not under the home: a socket's path may have 107 bytes at most (unix(7)).
        """
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        mark = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:10]
        return Path(base) / f"tracklayer-{os.getuid()}-{mark}"

    @property
    def airflow_url(self) -> str:
        return f"http://{self.host}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def gateway_home(self) -> Path:
        """The callers' keys and their usage; owner-only."""
        return self.home / "gateway"

    @property
    def routes(self) -> Path:
        """Which servers answer for which project, as the gateway knows it."""
        return self.home / "routes.json"

    @property
    def gateway_url(self) -> str:
        scheme = "https" if self.gateway_tls_cert else "http"
        return self.gateway_address or f"{scheme}://{self.host}:{self.gateway_port}"

    @property
    def grpc_port(self) -> int | None:
        """The port of the gateway's gRPC; None: it has none."""
        if self.gateway_grpc_port is None:
            # Not a fixed one: platforms side by side have different ports already.
            return self.gateway_port + 1 if self.gateway_port < 65535 else None
        return self.gateway_grpc_port or None

    @property
    def gateway_grpc(self) -> str | None:
        """Host and port by which callers reach the gateway's gRPC; None: it has none."""
        host = urlsplit(self.gateway_address or "").hostname or self.host
        shown = f"[{host}]" if ":" in host else host
        return f"{shown}:{self.grpc_port}" if self.grpc_port else None


@cache
def settings() -> Settings:
    """The settings of this process; read once.

    :raises PlatformError: one of them has a value that it cannot have.
    """
    kept = Path(os.environ.get("TRACKLAYER_HOME") or default_home()).expanduser() / "settings.json"
    try:
        found = Settings()
    except ValidationError as error:
        wrong = [(str(each["loc"][0]), each["input"], each["msg"]) for each in error.errors()]
        raise PlatformError(
            "\n".join(f"the setting {name} is {value!r}: {why}" for name, value, why in wrong),
            hint=f"It is {', '.join(f'TRACKLAYER_{name.upper()}' for name, *_ in wrong)} of the "
            f"environment, or in {kept}.",
        ) from None
    except ValueError as error:
        raise PlatformError(
            f"{kept} is damaged: {error}", hint="`tracklayer up` writes it; remove it."
        ) from error
    return found.model_copy(update={"home": found.home.expanduser().absolute()})


def resource(name: str) -> Path:
    """A file or folder that ships with the platform, such as ``infra/terraform/local``.

    In a wheel these lie in the package, in a clone at the root of the repository.

    :raises FileNotFoundError: it does not exist.
    """
    package = Path(__file__).parent
    for root in (package / "resources", package.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(name)

"""What it takes to serve a version again, kept for every version that was ever deployed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tracklayer.errors import PlatformError, ServiceError
from tracklayer.files import write_text
from tracklayer.gateway.routes import Access
from tracklayer.serving import Golden


class Release(BaseModel):
    """A version of a project's model, as it is deployed.

    :param manifest: digest of the model's files in the store.
    :param replicas: model servers that share its requests.
    :param golden: what each of them has to answer rightly before it gets a user's request.
    :param allow: what its servers may run although it came with the model.
    :param commit: of the project's files, if they are known.
    :param access: that the project has while this version is the champion; None: as it was.
    """

    model_config = ConfigDict(frozen=True)

    version: int = Field(ge=0)
    manifest: str
    replicas: int = Field(ge=1)
    golden: Golden
    allow: list[str] = []
    commit: str | None = None
    access: Access | None = None


class Releases:
    """The releases of one project.

    :param folder: one file a version; only its owner can read them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, release: Release) -> None:
        """Keep a release.

        :raises PlatformError: it cannot be written.
        """
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(self._folder / f"{release.version}.json", release.model_dump_json())
        except OSError as error:
            raise PlatformError(f"cannot write to {self._folder}: {error.strerror}") from error

    def load(self, version: int) -> Release:
        """The release of a version.

        :raises ServiceError: it was never deployed here, or its file is damaged.
        """
        path = self._folder / f"{version}.json"
        try:
            return Release.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            known = ", ".join(map(str, self.versions())) or "none"
            raise ServiceError(
                f"version {version} was never deployed here", hint=f"Deployed were: {known}."
            ) from None
        except (OSError, ValidationError) as error:
            raise ServiceError(f"the file {path} is damaged", hint="Deploy it anew.") from error

    def versions(self) -> list[int]:
        """All versions that are known, in order."""
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.json"))

"""Where MLflow's artifacts are: the address, and how MLflow comes by what is behind it.

MLflow loads this module whenever it is imported itself (entry point group
``mlflow.artifact_repository``), before its own classes are complete and whether the address is
asked for or not: so nothing here needs MLflow or the store until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracklayer.tracking.artifacts import StoreArtifactRepository

DESTINATION = "tracklayer:///"
"""The address that the server is given for its artifacts."""
ROOT = "mlflow"
"""Below this name are the references of all artifacts in the store."""


def repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> StoreArtifactRepository:
    """The artifacts behind an address ``tracklayer:///<folder>``.

    :raises MlflowException: it is no such address, or the store cannot be opened.
    """
    from tracklayer.tracking.artifacts import StoreArtifactRepository

    return StoreArtifactRepository(artifact_uri, tracking_uri, registry_uri)

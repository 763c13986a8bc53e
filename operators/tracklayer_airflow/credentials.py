"""What opens a source's door: an Airflow connection, else what the environment holds."""

from __future__ import annotations

from tracklayer.errors import SourceError
from tracklayer.sources import Credential
from tracklayer.sources.protocol import from_environment
from tracklayer_airflow.connections import find, how_to_add

_FIELDS = {
    "huggingface": "--conn-password <token>",
    "kaggle": "--conn-login <user> --conn-password <key>",
    "s3": "--conn-login <access key> --conn-password <secret key>",
    "git": "--conn-login <user> --conn-password <token>",
}


def credential(kind: str, connection: str | None) -> Credential | None:
    """The credential of a kind of service: "huggingface", "kaggle", "s3", "git" or a connector's.

    :param connection: the connection that the source names in its spec. None: the connection
        ``tracklayer_<kind>``, if there is one, else the variables of the service's own tool.
    :raises SourceError: the named connection does not exist.
    :raises PlatformError: Airflow does not give it to this task, or cannot be asked.
    """
    found = find(connection or f"tracklayer_{kind}")
    if found is None and connection:
        raise SourceError(
            f"the source names the Airflow connection {connection}, which does not exist",
            hint=how_to_add(connection, _FIELDS.get(kind, "--conn-password <token>")),
        )
    return found or from_environment(kind)

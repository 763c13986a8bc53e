"""MLflow's REST API, and its errors as ours.

Without the ``mlflow`` package: every task of a pipeline is a fresh process, and importing it takes
2.0 s and 170 MB (3.17.2, on the machine where ``import httpx`` takes 0.2 s and 29 MB).
The API is documented at https://mlflow.org/docs/latest/rest-api.html; artifacts go through the
server, as ``mlflow server --serve-artifacts`` offers them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tracklayer.errors import TrackingError

MIB = 1024**2
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


class RefusedError(TrackingError):
    """The server understood a call and refused it. ``code`` is MLflow's error code."""

    def __init__(self, message: str, code: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str]]:
        return type(self), (self.message, self.code)


class Rest:
    """Calls to one tracking server.

    :param uri: ``http://host:port``, with ``user:password@`` if the server asks for it.
    :raises TrackingError: it is no such address.
    """

    def __init__(self, uri: str) -> None:
        self.address = _PASSWORD.sub("***@", uri.rstrip("/"))
        if not re.match("https?://[^/]", uri):
            hint = "Start a server (`mlflow server`) and give its address: http://host:port."
            raise TrackingError(f"{self.address!r} is no address of an MLflow server.", hint=hint)
        # A server that is just being restarted is asked again, for three and a half seconds.
        transport = httpx.HTTPTransport(retries=4)
        timeout = httpx.Timeout(60, connect=10)
        self._http = httpx.Client(base_url=uri.rstrip("/"), transport=transport, timeout=timeout)

    def get(self, method: str, **parameters: str | int) -> dict[str, Any]:
        """Ask for something, such as ``runs/get``.

        :raises RefusedError: there is none, or it must not be asked for.
        :raises TrackingError: the server cannot be reached.
        """
        with self._mapped():
            return self._answer(self._http.get(_path(method), params=parameters))

    def post(self, method: str, verb: str = "POST", **values: Any) -> dict[str, Any]:
        """Change something, such as ``runs/update``.

        :raises RefusedError: the server refused it.
        :raises TrackingError: the server cannot be reached.
        """
        with self._mapped():
            return self._answer(self._http.request(verb, _path(method), json=values))

    def upload(self, path: str, content: bytes | Path) -> None:
        """Store one artifact under its path in the server's store.

        :raises TrackingError: the server refused it or cannot be reached.
        """
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        body = _parts(content) if isinstance(content, Path) else content
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._mapped():
            self._answer(self._http.put(_ARTIFACTS + quote(path), content=body, headers=headers))

    def download(self, path: str) -> Iterator[bytes]:
        """The content of one artifact, in parts.

        :raises TrackingError: there is none, or the server cannot be reached.
        """
        with self._mapped(), self._http.stream("GET", _ARTIFACTS + quote(path)) as response:
            if response.is_error:
                response.read()
                self._answer(response)
            yield from response.iter_bytes(MIB)

    def list(self, path: str) -> list[dict[str, Any]]:
        """The files and folders in a folder of artifacts: ``path`` (its name), ``is_dir``,
        ``file_size``.

        :raises TrackingError: the server cannot be reached.
        """
        with self._mapped():
            found = self._answer(self._http.get(_ARTIFACTS[:-1], params={"path": path}))
        files: list[dict[str, Any]] = found.get("files", [])
        return files

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        with suppress(ValueError):
            body = response.json() if response.content else {}
            answer = body if isinstance(body, dict) else {}
        if response.is_success:
            if response.content and not answer and response.content.strip() != b"{}":
                message = f"{self.address} is no MLflow server, or not one that this speaks with."
                raise TrackingError(message, hint="Check the address of the tracking server.")
            return answer
        said = answer.get("message") or answer.get("detail") or response.text.strip()[:500]
        code = str(answer.get("error_code", response.status_code))
        what = f"{response.request.method} {response.request.url.path}"
        hint = None
        if response.status_code in (401, 403):
            hint = "Put the user into the address: http://user:password@host:port."
        message = f"The MLflow server {self.address} refused {what} ({code}): {said}"
        raise RefusedError(message, code, hint=hint)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        hint = "Is it running? `tracklayer doctor` says; its log is mlflow.log in the home."
        try:
            yield
        except httpx.TimeoutException:
            message = f"The MLflow server {self.address} gave no answer in time."
            raise TrackingError(message, hint=hint) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = _PASSWORD.sub("***@", str(error)) or type(error).__name__
            message = f"The MLflow server {self.address} cannot be reached: {said}"
            raise TrackingError(message, hint=hint) from None


def _path(method: str) -> str:
    return f"/api/2.0/mlflow/{method}"


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while part := stream.read(MIB):
            yield part

"""Requests to the platform: who asks, and every way to fail as an error of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from tracklayer import errors
from tracklayer.errors import PlatformError, Problem, ProjectError, SpecError, TracklayerError

Data = dict[str, Any]
Login = Callable[[], tuple[str, str]]

_TIMEOUT = httpx.Timeout(60, connect=5)  # seconds; a save fetches from the git remote
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TRIES = 3
_PAUSE = 0.5  # seconds


class UnreachableError(PlatformError):
    """The platform does not answer, or could not for the moment; asking again may help."""


def is_local(url: str) -> bool:
    """Is an address on this machine? A proxy of the environment is never for those."""
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:  # no address at all; the first request says so
        return False


class Transport:
    """An authenticated connection to one platform.

    :param url: of Airflow's web server, with the base path if it has one.
    :param token: to send; or what gives a user's name and password, to get one with the first
        request. It is kept in memory only.
    """

    def __init__(self, url: str, token: str | Login) -> None:
        self.url = url.rstrip("/")
        self._login = None if isinstance(token, str) else token
        self._token = token if isinstance(token, str) else None
        self.local = is_local(self.url)
        # To load the certificates takes longer than most commands.
        secure = self.url.startswith("https:")
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=not self.local, verify=secure)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The answer to a request, which must be JSON."""
        return _as_json(self.send(method, path, **options))

    def object(self, method: str, path: str, **options: Any) -> Data:
        """The answer to a request, which must be a JSON object."""
        found = self.json(method, path, **options)
        if not isinstance(found, dict):
            raise PlatformError(f"{self.url}{path} answered with something unexpected.")
        return found

    def send(
        self, method: str, path: str, *, allowed: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """One request; any status but success and ``allowed`` is an error.

        :raises UnreachableError: no answer, or none for the moment.
        :raises TracklayerError: what the platform says is wrong.
        """
        headers = {"Accept": "application/json", **options.pop("headers", {})}
        for left in reversed(range(_TRIES)):
            if self._token is None:
                self._token = self._new_token()
            headers["Authorization"] = f"Bearer {self._token}"
            response = self._request(method, path, headers=headers, **options)
            if response.status_code == 401 and self._login and left:
                self._token = None  # too old, or of a platform that has begun anew since
            elif response.status_code >= 500 and left:
                # Airflow on SQLite answers so to the second of two changes at one moment. Each
                # request may be sent twice: none makes anything whose name it does not give.
                time.sleep(_PAUSE)
            else:
                break
        if response.is_success or response.status_code in allowed:
            return response
        raise self._error(method, path, response)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, self.url + path, **options)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            start = "Start it with `tracklayer up`." if self.local else "Check the address."
            raise UnreachableError(
                f"The platform does not answer at {self.url} ({error or type(error).__name__}).",
                hint=start,
            ) from None

    def _new_token(self) -> str:
        assert self._login is not None
        user, password = self._login()
        body = {"username": user, "password": password}
        response = self._request("POST", "/auth/token", json=body)
        if not response.is_success:
            raise self._error("POST", "/auth/token", response)
        return str(_as_json(response)["access_token"])

    def _error(self, method: str, path: str, response: httpx.Response) -> TracklayerError:
        status = response.status_code
        try:
            data = response.json()
        except ValueError:
            data = {}
        data = data if isinstance(data, dict) else {}
        if isinstance(data.get("error"), str) and "kind" in data:
            return _remote_error(data)
        if status == 401 or data.get("detail") == "Invalid JWT token":
            hint = "Get a new token, and name its file with `--token-file`."
            return PlatformError(f"The platform at {self.url} does not take this token.", hint=hint)
        if status == 403:
            return PlatformError(
                f"The platform at {self.url} does not allow this user to do that.",
                hint="Ask an administrator for the right to see or change the project.",
            )
        said = _detail(data) or response.reason_phrase
        if status == 404 and path.startswith("/tracklayer") and data == {"detail": "Not Found"}:
            hint = "Check the address: it is that of Airflow's page."
            return PlatformError(f"{self.url} is no Tracklayer platform.", hint=hint)
        if status == 404:
            return ProjectError(f"{said}.", hint="`tracklayer status` lists the projects.")
        if status in (400, 409, 422):
            return ProjectError(said)
        kind = UnreachableError if status >= 500 else PlatformError
        return kind(f"The platform answered {status} to {method} {path}: {said}")


def _as_json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        hint = "Check the address: it is that of Airflow's page."
        raise PlatformError(f"{response.url} did not answer with JSON.", hint=hint) from None


def _remote_error(data: Data) -> TracklayerError:
    """The error that the platform raised, as if it had been raised here."""
    if problems := data.get("problems"):
        return SpecError([Problem(**problem) for problem in problems])
    kind = getattr(errors, data["kind"], PlatformError)
    if not (isinstance(kind, type) and issubclass(kind, TracklayerError)):
        kind = PlatformError
    return kind(data["error"], hint=data.get("hint"))


def _detail(data: Data) -> str:
    """The first line of what Airflow says is wrong."""
    detail = data.get("detail", "")
    if isinstance(detail, list):  # pydantic's list of what is wrong with a body
        return "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in detail)
    if isinstance(detail, dict):
        detail = detail.get("reason") or detail.get("message") or ""
    return str(detail).partition("\n")[0].rstrip(".")

"""The part of Kaggle's API that fetching needs: ``POST /api/v1/<service>/<method>`` with JSON."""

from __future__ import annotations

import asyncio
import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from repositories import archive, read_json, tree
from traffic import Traffic


class Kaggle:
    """Data sets, models and competitions below ``<root>/kaggle``."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.root = traffic.root / "kaggle"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One call. An error is a JSON object with ``code`` and ``message``."""
        method = request.match_info["method"]
        asked: dict[str, Any] = await request.json()
        if method == "IntrospectToken":
            return web.json_response({"active": True, "username": "tester"})
        place = self._place(method, asked)
        if not place.is_dir():
            return _error(404, "Not found")
        if (refused := _refused(request, read_json(place / "access.json"))) is not None:
            return refused
        versions = sorted(int(path.name) for path in place.iterdir() if path.name.isdigit())
        current = versions[-1] if versions else 0
        if method == "GetDataset":
            owner, name = asked["ownerSlug"], asked["datasetSlug"]
            about = {"id": 1, "ref": f"{owner}/{name}", "currentVersionNumber": current}
            return web.json_response(about)
        if method == "GetModelInstance":
            about = {"id": 1, "slug": asked["instanceSlug"], "versionNumber": current}
            return web.json_response(about)
        wanted = asked.get("datasetVersionNumber") or asked.get("versionNumber") or current
        folder = place / (str(wanted) if versions else "data")
        if not folder.is_dir():
            return _error(404, "Not found")
        if method.startswith("List"):
            return self._list(method, asked, folder)
        return await self._download(method, asked, folder)

    def _place(self, method: str, asked: dict[str, Any]) -> Path:
        if "Dataset" in method:
            return self.root / "datasets" / asked["ownerSlug"] / asked["datasetSlug"]
        if "Model" in method:
            framework = re.sub("^MODEL_FRAMEWORK_|_", "", asked["framework"]).lower()
            names = (asked["ownerSlug"], asked["modelSlug"], framework, asked["instanceSlug"])
            return self.root.joinpath("models", *names)
        return self.root / "competitions" / asked["competitionName"]

    def _list(self, method: str, asked: dict[str, Any], folder: Path) -> web.Response:
        names = tree(folder)
        begin = int(asked.get("pageToken") or 0)
        page = min(asked.get("pageSize") or 20, self.traffic.knobs.page)
        size, key = ("totalBytes", "files")
        if "Dataset" in method:
            key = "datasetFiles"
        elif "Model" in method:
            size = "size"
        items = [
            {
                "name": name,
                size: (found := (folder / name).stat()).st_size,
                "creationDate": datetime.fromtimestamp(found.st_mtime, UTC)
                .replace(tzinfo=None)
                .isoformat(timespec="milliseconds")
                + "Z",
            }
            for name in names[begin : begin + page]
        ]
        following = str(begin + page) if begin + page < len(names) else ""
        return web.json_response({key: items, "nextPageToken": following})

    async def _download(self, method: str, asked: dict[str, Any], folder: Path) -> web.Response:
        if name := asked.get("fileName"):
            path = folder / name
            if not path.is_file():
                return _error(404, "Not found")
        else:
            kind = "tar.gz" if "Model" in method else "zip"
            path = await asyncio.to_thread(archive, folder, self.root / "cache", kind)
        return web.Response(status=302, headers={"Location": self.traffic.sign(path)})


def _refused(request: web.Request, access: dict[str, Any]) -> web.Response | None:
    if "tokens" not in access:
        return None
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if not given:
        return _error(401, "Unauthorized")
    if scheme.lower() == "basic":
        given = base64.b64decode(given).decode()
    if given in access["tokens"]:
        return None
    return _error(403, "You must accept the rules before you can download this")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"code": status, "message": message}, status=status)

"""The part of the Hugging Face Hub's HTTP API that fetching needs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web
from repositories import digests, read_json, tree
from traffic import Traffic

KINDS = ("models", "datasets", "spaces")


class HuggingFace:
    """Repositories below ``<root>/huggingface``.

    As on the real hub the list of a gated repository may be read by everybody, its files not.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.root = traffic.root / "huggingface"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``/api/<kind>s/<name>[/revision/..|/tree/..]`` or ``[/<kind>s]/<name>/resolve/..``."""
        # By the path as it was sent: a revision's slashes come as %2F.
        raw = request.raw_path.partition("?")[0]
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        api = parts[0] == "api"
        parts = parts[api:]
        kind = parts.pop(0) if parts[0] in KINDS else "models"
        name, verb, rest = _split(parts)
        repository = self.root / kind / name
        if (moved := repository / "moved").exists():  # renamed, or a name of one part
            there = moved.read_text().strip()
            there = there if "://" in there else raw.replace(name, there, 1)
            return web.Response(status=307, headers={"Location": there})
        if not (repository / "refs.json").exists():
            return _error(404, "RepoNotFound", "Repository not found")
        access = read_json(repository / "access.json")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = token in access.get("tokens", [])
        if access.get("private") and not allowed:
            return _error(404 if token else 401, "RepoNotFound", "Repository not found")
        commit = self._commit(repository, rest[0] if rest else "main")
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        if api and verb == "tree":
            return await self._tree(request, repository / "commits" / commit, "/".join(rest[1:]))
        if api:
            return self._info(name, commit, repository, access)
        if access.get("gated") and not allowed:
            why = "Access to it is restricted and you are not in the authorized list."
            return _error(403 if token else 401, "GatedRepo", why)
        return await self._resolve(request, repository / "commits" / commit, "/".join(rest[1:]))

    def _commit(self, repository: Path, revision: str) -> str | None:
        refs: dict[str, str] = read_json(repository / "refs.json")
        if revision in refs:
            return refs[revision]
        known = re.fullmatch("[0-9a-f]{40}", revision) and (repository / "commits" / revision)
        return revision if known and known.exists() else None

    def _info(
        self, name: str, commit: str, repository: Path, access: dict[str, Any]
    ) -> web.Response:
        listed = [{"rfilename": path} for path in tree(repository / "commits" / commit)]
        gated = "auto" if access.get("gated") else False
        about = {"id": name, "modelId": name, "sha": commit, "siblings": listed, "gated": gated}
        return web.json_response(about | {"private": bool(access.get("private")), "tags": []})

    async def _tree(self, request: web.Request, folder: Path, below: str) -> web.Response:
        paths = await asyncio.to_thread(tree, folder)
        prefix = f"{below}/" if below else ""
        paths = [path for path in paths if path.startswith(prefix)]
        folders = {str(parent) for path in paths for parent in Path(path).parents} - {"."}
        folders = {path for path in folders if path.startswith(prefix)}
        entries = sorted([*paths, *folders])
        if request.query.get("recursive", "").lower() != "true":
            entries = [path for path in entries if "/" not in path.removeprefix(prefix)]
        begin, page = int(request.query.get("cursor", "0")), self.traffic.knobs.page
        shown = entries[begin : begin + page]
        items = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            if path in folders
            else await asyncio.to_thread(_file, folder, path)
            for path in shown
        ]
        response = web.json_response(items)
        if begin + page < len(entries):
            query = {**request.query, "cursor": str(begin + page)}
            following = request.url.with_query(query)
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def _resolve(self, request: web.Request, folder: Path, name: str) -> web.StreamResponse:
        path = folder / name
        if not path.is_file():
            return _error(404, "EntryNotFound", "Entry not found")
        known = await asyncio.to_thread(digests, path)
        headers = {"X-Repo-Commit": folder.name, "ETag": f'"{known.etag}"'}
        if not known.large:
            return await self.traffic.send(request, path, headers)
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(known.size)}
        headers["Location"] = self.traffic.sign(path)
        return web.Response(status=302, headers=headers)


def _split(parts: list[str]) -> tuple[str, str, list[str]]:
    for place, part in enumerate(parts):
        if place and part in ("revision", "tree", "resolve"):
            return "/".join(parts[:place]), part, parts[place + 1 :]
    return "/".join(parts), "", []


def _file(folder: Path, path: str) -> dict[str, Any]:
    known = digests(folder / path)
    item = {"type": "file", "oid": known.oid, "size": known.size, "path": path}
    if known.large:
        pointer = len(known.pointer)
        item["lfs"] = {"oid": known.sha256, "size": known.size, "pointerSize": pointer}
    return item


def _error(status: int, code: str, message: str) -> web.Response:
    headers = {"X-Error-Code": code, "X-Error-Message": quote(message, safe=" .,:'")}
    return web.json_response({"error": message}, status=status, headers=headers)

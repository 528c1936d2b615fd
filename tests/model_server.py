"""A real HTTP server on 127.0.0.1 that speaks a model hub's protocol, serves plain files, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: files of so many bytes are stored with LFS
LFS_FROM = 2000


@dataclass
class Served:
    """What lies at a path. cuts: after how many bytes each of the next answers breaks off; slow: seconds per 64 KiB."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = None
    cuts: list[int] = field(default_factory=list)
    slow: float = 0.0
    claims: int | None = None  # the Content-Length that it names instead
    statuses: list[int] = field(default_factory=list)  # of the next answers, before it serves


@dataclass
class Repository:
    """files: by name. gated: None, "login" (a token must be sent) or "licence" (nobody has accepted it)."""

    files: dict[str, bytes]
    gated: str | None = None
    licence: str = "openrail"
    wrong: dict[str, bytes] = field(default_factory=dict)  # what is sent for a file instead of its content
    sizes: dict[str, int] = field(default_factory=dict)  # sizes that are listed instead


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


class ModelServer:
    """repositories: of the hub, by ORGANISATION/NAME; files: by path; asked: all requests, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.before_block: Callable[[Asked], None] = lambda asked: None
        handler = type("Bound", (Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        #: the same server under another name: another host to whoever keeps secrets
        self.elsewhere = f"http://localhost:{self.port}"

    def paths(self, method: str = "GET") -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    def of(self, path: str) -> list[Asked]:
        return [one for one in self.asked if one.path.partition("?")[0] == path and one.method == "GET"]

    @contextmanager
    def running(self) -> Iterator[ModelServer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    server_of: ModelServer
    protocol_version = "HTTP/1.1"
    asked: Asked

    def log_message(self, format: str, *arguments: Any) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked = Asked(self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        self.server_of.asked.append(self.asked)
        path = unquote(self.path.partition("?")[0])
        try:
            if path.startswith("/api/models/"):
                self._api(path.removeprefix("/api/models/"))
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(match[1], match[2], match[3])
            elif path in self.server_of.files:
                self._serve(self.server_of.files[path])
            else:
                self._serve(Served(b"Not Found", status=404, headers={"Content-Type": "text/plain"}))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # --- the hub

    def _api(self, path: str) -> None:
        match = re.fullmatch(r"([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        repository = self.server_of.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            self._serve(Served(b"{}", 401, {"X-Error-Code": "RepoNotFound", "Content-Type": "application/json"}))
        elif match[3] not in (None, "main", COMMIT):
            self._serve(Served(b"{}", 404, {"X-Error-Code": "RevisionNotFound"}))
        elif match[2] == "tree":
            self._json([tree_entry(repository, name) for name in repository.files])
        else:
            self._json(
                {
                    "id": match[1],
                    "sha": COMMIT,
                    "gated": "auto" if repository.gated else False,
                    "cardData": {"license": repository.licence},
                    "siblings": [sibling(repository, name) for name in repository.files],
                }
            )

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        repository = self.server_of.repositories.get(repo)
        token = self.asked.headers.get("authorization")
        if repository is None:
            self._serve(Served(b"", 401, {"X-Error-Code": "RepoNotFound"}))
        elif repository.gated == "licence" or (repository.gated == "login" and token is None):
            self._serve(Served(b"", 403 if token else 401, {"X-Error-Code": "GatedRepo"}))
        elif name not in repository.files:
            self._serve(Served(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}))
        else:
            content = repository.files[name]
            headers = {"X-Repo-Commit": COMMIT}
            if len(content) < LFS_FROM:
                self._serve(Served(repository.wrong.get(name, content), 200, headers, etag=git_blob(content)))
                return
            digest = sha256(content)
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.server_of.elsewhere}/cdn/{digest}?signature=secret",
            }
            self.server_of.files.setdefault(
                f"/cdn/{digest}", Served(repository.wrong.get(name, content), etag="cdn-" + digest)
            )
            self._serve(Served(b"Found", 302, headers))

    def _json(self, content: Any) -> None:
        self._serve(Served(json.dumps(content).encode(), headers={"Content-Type": "application/json"}))

    # --- files

    def _serve(self, served: Served) -> None:
        status = served.statuses.pop(0) if served.statuses else served.status
        if status != served.status:
            served = Served(b"", status, served.headers)
        headers = {"Content-Type": "application/octet-stream", **served.headers}
        content, start = served.content, 0
        if served.etag is not None:
            headers["ETag"] = f'"{served.etag}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.asked.headers.get("range", ""))
        condition = self.asked.headers.get("if-range")
        if served.ranges and served.status == 200 and asked and condition in (None, headers.get("ETag")):
            start = int(asked[1])
            if start >= len(content):
                self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        length = len(content) - start if served.claims is None else served.claims
        self._head(status, {**headers, "Content-Length": str(length)})
        if self.command == "GET":
            self._send(served, content[start:])

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, served: Served, content: bytes) -> None:
        cut = served.cuts.pop(0) if served.cuts else None
        end = len(content) if cut is None else cut
        for begin in range(0, end, 1 << 16):
            self.server_of.before_block(self.asked)
            if served.slow:
                time.sleep(served.slow)
            block = content[begin : min(begin + (1 << 16), end)]
            self.wfile.write(block)
            self.asked.sent += len(block)
        if cut is not None or served.claims is not None:
            self.wfile.flush()
            self.close_connection = True


def sibling(repository: Repository, name: str) -> dict[str, Any]:
    content = repository.files[name]
    size = repository.sizes.get(name, len(content))
    told: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_blob(content)}
    if len(content) >= LFS_FROM:
        told["lfs"] = {"sha256": sha256(content), "size": size, "pointerSize": 134}
    return told


def tree_entry(repository: Repository, name: str) -> dict[str, Any]:
    content = repository.files[name]
    told: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
    if len(content) >= LFS_FROM:
        told["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return told


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

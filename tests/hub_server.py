"""A stand-in for the hub's HTTP interface to dataset repositories, as far as pushing and pulling need it, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
REPOSITORY = re.compile(r"/(?:api/)?datasets/(?P<name>[^/]+/[^/]+)/(?P<rest>.*)")


class Handler(BaseHTTPRequestHandler):
    """Repositories are dictionaries of files; every commit is a new revision, called by the hash of all of them."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            if name in self.repositories:
                address = f"{self._address}/datasets/{name}"
                return self._json({"error": "You already created this dataset repo", "url": address}, 409)
            self.repositories[name] = {}
            return self._json({"url": f"{self._address}/datasets/{name}"})
        name, rest = self._place(path)
        if rest.startswith("preupload/"):
            files = json.loads(body)["files"]
            found = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self._json({"files": found})
        if rest.startswith("commit/"):
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            revision = self._revision(name)
            address = f"{self._address}/datasets/{name}/commit/{revision}"
            return self._json({"success": True, "commitOid": revision, "commitUrl": address, "hookOutput": ""})
        return self._json({"error": "not found"}, 404)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        name, rest = self._place(urlsplit(self.path).path)
        if name not in self.repositories:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if match := re.fullmatch(r"resolve/[^/]+/(.*)", rest):
            data = self.repositories[name].get(unquote(match[1]))
            if data is None:
                return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha1(data).hexdigest()
            return self._send(data if with_body else b"", 200, len(data), {"ETag": f'"{etag}"'})
        if rest.startswith("tree/"):
            return self._json([{"type": "file", **entry} for entry in self._entries(name)])
        entries = [{"rfilename": entry["path"]} for entry in self._entries(name)]
        return self._json({"id": name, "sha": self._revision(name), "private": False, "tags": [], "siblings": entries})

    def _entries(self, name: str) -> list[dict[str, Any]]:
        return [
            {"path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in self.repositories[name].items()
        ]

    def _revision(self, name: str) -> str:
        files = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repositories[name].items())
        return hashlib.sha1(json.dumps(files).encode()).hexdigest()

    def _place(self, path: str) -> tuple[str, str]:
        match = REPOSITORY.fullmatch(path) or re.fullmatch(r"/api/datasets/(?P<name>[^/]+/[^/]+)(?P<rest>)", path)
        return (match["name"], match["rest"]) if match else ("", "")

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send(data, status, len(data), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        name, _ = self._place(urlsplit(self.path).path)
        if name in self.repositories:
            self.send_header("X-Repo-Commit", self._revision(name))
        for field, value in headers.items():
            self.send_header(field, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """(address, repository -> path -> bytes) of a hub without repositories."""
    handler = type("Hub", (Handler,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.repositories
    finally:
        server.shutdown()
        server.server_close()

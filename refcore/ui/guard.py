"""The page's guard: who may speak to it, and which files of the runs folder it hands out."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE, PARAMETER = "refcore_token", "token"
LOCAL = ("127.0.0.1", "localhost", "::1")
SERVED = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".webp": "image/webp",
    ".yaml": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "text/plain; charset=utf-8",
}
"""Endings of the files of a run that are handed out, and their types."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
)
FILE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""A report may be somebody else's: it runs without the page's origin, and loads nothing."""


class Guard:
    """Refuses requests under foreign names (DNS rebinding), from other pages, and without the token where one is asked.

    A web page of another site can make a browser send requests here; it cannot choose their `Host` and `Origin`.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] = LOCAL, token: str | None = None) -> None:
        """
        Args:
            app: what is guarded.
            hosts: names under which the page is reached. With a token, addresses in numbers are, too, since no
                foreign name stands behind them.
            token: that a browser shows once, as `?token=`; None: none is asked.
        """
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self._known(host):
            await _refuse(scope, send, 403, "this page is not served under that name")
        elif origin is not None and origin.partition("://")[2] != host:
            await _refuse(scope, send, 403, "this page takes no requests from other pages")
        elif self.token is not None and not self._shown(headers.get(b"cookie", "")):
            await self._ask(scope, send)
        else:
            await self.app(scope, receive, _with_headers(send))

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.strip("[]").lower()
        if name in self.hosts:
            return True
        if self.token is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _shown(self, cookies: str) -> bool:
        assert self.token is not None
        found = [one.strip().partition("=") for one in cookies.split(";")]
        return any(name == COOKIE and hmac.compare_digest(value, self.token) for name, _, value in found)

    async def _ask(self, scope: Scope, send: Send) -> None:
        """Sends a browser that shows the token to the same page with a cookie, and others away."""
        assert self.token is not None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        given = query.pop(PARAMETER, [""])[-1]
        if scope["type"] != "http" or not hmac.compare_digest(given.encode(), self.token.encode()):
            await _refuse(scope, send, 401, "open the address with ?token=... that the command printed")
            return
        rest = urlencode(query, doseq=True)
        place = "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
        cookie = f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        start = [(b"location", place.encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": [*start, *HEADERS]})
        await send({"type": "http.response.body", "body": b""})


def served(runs: Path, path: str) -> Path | None:
    """The file of the runs folder that may be handed out under a path; None where there is none.

    Nothing outside the folder is, by `..`, an absolute name or a link, nothing hidden, and only what a run writes.
    """
    try:
        root = runs.resolve(strict=True)
        found = (root / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    if not found.is_relative_to(root) or not found.is_file() or found.suffix not in SERVED:
        return None
    hidden = any(part.startswith(".") for part in found.relative_to(root).parts)
    return None if hidden else found


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    head = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": why.encode()})


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {key.lower() for key, _ in message.get("headers", [])}
            extra = [(key, value) for key, value in HEADERS if key not in given]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending

"""The page speaks to its own visitors alone, and hands out nothing but what runs have written."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from refcore.ui.guard import COOKIE, LOCAL, Guard, Receive, Scope, Send, served

TOKEN = "s3cret"


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(guard: Guard, headers: dict[str, str], path: str = "/", query: str = "", kind: str = "http") -> dict[str, Any]:
    """The status, headers and body of an answer; a websocket that is refused has the status 0."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(guard(scope, receive, send))
    first = sent[0]
    if kind == "websocket":
        return {"status": 101 if first["type"] == "websocket.accept" else 0}
    found = {name.decode(): value.decode() for name, value in first["headers"]}
    return {"status": first["status"], "headers": found, "body": sent[1]["body"]}


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860"])
def test_its_own_names_are_served(host: str) -> None:
    found = ask(Guard(inner), {"Host": host})
    assert (found["status"], found["body"]) == (200, b"inside")
    assert found["headers"]["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1.evil.example", "192.0.2.1:7860", "", "localhost.evil"]
)
def test_a_foreign_name_is_refused_as_after_dns_rebinding(host: str, kind: str) -> None:
    assert ask(Guard(inner), {"Host": host}, kind=kind)["status"] in (403, 0)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:1234", "null", "https://127.0.0.1.evil.example:7860"]
)
def test_a_request_of_another_page_is_refused(origin: str) -> None:
    headers = {"Host": "localhost:7860", "Origin": origin}
    assert ask(Guard(inner), headers)["status"] == 403
    assert ask(Guard(inner), headers, kind="websocket")["status"] == 0
    assert ask(Guard(inner), {**headers, "Origin": "http://localhost:7860"})["status"] == 200


def test_with_a_token_nobody_enters_without_it_and_a_browser_shows_it_once() -> None:
    guard = Guard(inner, (*LOCAL, "host.example"), TOKEN)
    headers = {"Host": "host.example:7860"}
    assert ask(guard, headers)["status"] == 401
    assert ask(guard, headers, query="token=wrong")["status"] == 401
    assert ask(guard, {**headers, "Cookie": f"{COOKIE}=wrong"})["status"] == 401
    assert ask(guard, headers, kind="websocket", query=f"token={TOKEN}")["status"] == 0
    entered = ask(guard, headers, path="/a", query=f"token={TOKEN}&x=1")
    assert (entered["status"], entered["headers"]["location"]) == (303, "/a?x=1")
    cookie = entered["headers"]["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    shown = cookie.partition(";")[0]
    assert ask(guard, {**headers, "Cookie": f"other=1; {shown}"})["body"] == b"inside"
    assert ask(guard, {"Host": "192.0.2.1:7860", "Cookie": shown})["status"] == 200
    assert ask(guard, {"Host": "evil.example", "Cookie": shown})["status"] == 403


def test_a_location_never_leads_to_another_host() -> None:
    found = ask(Guard(inner, LOCAL, TOKEN), {"Host": "localhost"}, path="//evil.example/", query=f"token={TOKEN}")
    assert found["headers"]["location"] == "/evil.example/"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    (folder / "one" / ".hidden").mkdir(parents=True)
    for place in (
        "one/image_0.png",
        "one/report.html",
        "one/.hidden/image_0.png",
        "one/model.safetensors",
        ".starts.png",
    ):
        (folder / place).write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "one" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path)
    return folder


@pytest.mark.parametrize("path", ["one/image_0.png", "one/report.html", "one/../one/image_0.png"])
def test_files_of_runs_are_handed_out(runs: Path, path: str) -> None:
    assert served(runs, path) is not None


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "one/../../secret.png",
        "/etc/passwd",
        "one/link.png",
        "out/secret.png",
        "one/.hidden/image_0.png",
        ".starts.png",
        "one/model.safetensors",
        "one",
        "",
        "one/none.png",
        "one/image_0.png\0",
        "a" * 5000,
    ],
)
def test_nothing_else_is(runs: Path, path: str) -> None:
    assert served(runs, path) is None

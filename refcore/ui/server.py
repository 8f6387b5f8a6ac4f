"""The server of the page: Gradio behind the guard, and the files of the runs folder."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from refcore.errors import RefcoreError
from refcore.ui.guard import FILE_POLICY, LOCAL, SERVED, Guard, served
from refcore.ui.session import Session

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read by gradio when it is imported
FIRST_PORT, PORTS = 7860, 20


def make(session: Session, hosts: tuple[str, ...] = LOCAL, token: str | None = None) -> Guard:
    """The whole application: page, files, guard.

    Args:
        session: that runs what the page asks for.
        hosts: names under which it is reached.
        token: that a browser has to show; None: none.
    """
    import gradio
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from refcore.ui import page

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/runs/{path:path}")
    def file(path: str) -> FileResponse:
        found = served(session.runs, path)
        if found is None:
            raise HTTPException(404)
        headers = {"content-security-policy": FILE_POLICY, "cache-control": "no-store"}
        return FileResponse(found, media_type=SERVED[found.suffix], headers=headers)

    gradio.mount_gradio_app(
        app,
        page.build(session),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=f"{session.limits.upload_megabytes}mb",
        allowed_paths=[],
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        theme=page.theme(),
        css=page.CSS,
    )
    return Guard(app, hosts, token)


def serve(runs: Path, host: str, port: int | None, names: tuple[str, ...], announce: Callable[[str], None]) -> None:
    """Serves the page until it is interrupted; runs that go on are stopped and kept.

    Args:
        runs: folder of the runs; made where there is none.
        host: address to listen on.
        port: number of the port; None: the first free one from 7860.
        names: further names under which the page is reached.
        announce: receives the address, with the token where there is one.

    Raises:
        RefcoreError: the extra `ui` is not installed, or no port is free.
    """
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise RefcoreError(f"the page needs gradio: pip install 'refcore[ui]' ({error})") from error
    runs.mkdir(parents=True, exist_ok=True)
    chosen = free_port(host, port)
    token = None if host in LOCAL else secrets.token_urlsafe(24)
    session = Session(runs)
    try:
        app: Any = make(session, (*LOCAL, host, *names) if token else LOCAL, token)
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{chosen}/" + (f"?token={token}" if token else ""))
        uvicorn.run(app, host=host, port=chosen, log_level="warning", ws_max_size=2**20)
    finally:
        session.close()


def free_port(host: str, port: int | None) -> int:
    """The port, or the first free one.

    Raises:
        RefcoreError: it is taken, or all are.
    """
    wanted = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS)]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in wanted:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except OverflowError as error:
                raise RefcoreError(f"--port is {number}; expected 1 to 65535") from error
            except OSError:
                continue
            return int(probe.getsockname()[1])
    shown = str(wanted[0]) if len(wanted) == 1 else f"{wanted[0]} to {wanted[-1]}"
    raise RefcoreError(f'cannot listen on "{host}", port {shown}; name another with --port')

"""`refcore ui`: the page on which runs are started, watched and steered."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from refcore.errors import RefcoreError


def run(runs: Path, host: str, port: int | None, names: list[str], browser: bool) -> None:
    try:
        from refcore.ui.server import serve
    except ImportError as error:
        raise RefcoreError(f"the page needs gradio: pip install 'refcore[ui]' ({error})") from error

    def announce(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it; runs are kept in {runs})", flush=True)
        if browser:
            webbrowser.open(address)

    serve(runs, host, port, tuple(names), announce)

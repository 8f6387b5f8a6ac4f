"""HTML from the templates of this package: everything escaped, and a policy that lets a page fetch and run nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from refcore.runs.report.curves import brief
from refcore.runs.report.palette import style

MINUS = "\u2212"
NONE = "–"
"""In the place of a number that is not there."""


def render(template: str, **values: Any) -> str:
    """A page from one of the templates; values are escaped."""
    css, script = style() + "\n" + _text("page.css"), _text("page.js")
    return _environment().get_template(template).render(
        style=Markup(css), script=Markup(script), policy=_policy(css, script), **values
    )  # fmt: skip


def _policy(css: str, script: str) -> str:
    """The Content-Security-Policy: this style, this script, and pictures inside the page; nothing else."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["brief"] = lambda value: NONE if value is None else brief(value)
    environment.filters["score"] = lambda value: NONE if value is None else f"{value:.3f}".replace("-", MINUS)
    environment.filters["signed"] = lambda value: NONE if value is None else f"{value:+.3f}".replace("-", MINUS)
    return environment


def _text(name: str) -> str:
    return (resources.files("refcore.runs.report") / "templates" / name).read_text("utf-8")

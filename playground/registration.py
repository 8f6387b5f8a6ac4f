"""The playground's plugins; nothing heavy is imported here."""

from __future__ import annotations

from refcore.hooks import API_VERSION, Register, hookimpl

api_version = API_VERSION
"""It is released together with refcore."""


@hookimpl
def register_parsers(register: Register) -> None:
    register(
        "grammar",
        "refcore_playground.parser:GrammarParser",
        summary="Oracle: parses prompts with the grammar that writes the playground's",
    )


@hookimpl
def register_judges(register: Register) -> None:
    register(
        "playground",
        "refcore_playground.judge:PlaygroundJudge",
        summary="Reads scenes of coloured shapes from their pixels",
    )

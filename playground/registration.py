"""What the playground registers; nothing heavy is imported here."""

from __future__ import annotations

from refcore.hooks import Register, hookimpl


@hookimpl
def register_parsers(register: Register) -> None:
    register(
        "grammar",
        "refcore_playground.parsing:GrammarParser",
        summary="Oracle: reads prompts by the grammar that wrote the playground's",
    )

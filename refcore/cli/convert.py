"""`refcore convert`: the conversions that plugin classes offer (`Plugin.conversions`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from refcore import registry
from refcore.cli import output
from refcore.errors import RefcoreError, unknown


class ConvertCommand(TyperCommand):
    """Its help lists the conversions that plugins gave at registration."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.epilog = f"Conversions: {', '.join(registered())}."
        super().format_help(ctx, formatter)


def registered() -> list[str]:
    """The conversions that plugins gave at registration; nothing is imported."""
    return [
        f"{name}-{conversion}"
        for kind in registry.KINDS
        for name in registry.names(kind)
        for conversion in registry.entry(kind, name).conversions
    ]


def run(conversion: str, source: Path, out: Path) -> None:
    """Runs a conversion: `blip2-itg` is `itg` of the plugin `blip2`; both names may have hyphens."""
    for kind in registry.KINDS:
        for plugin in registry.names(kind):
            name = conversion.removeprefix(f"{plugin}-")
            if name == conversion:
                continue
            conversions = registry.get(kind, plugin).conversions
            if name in conversions:
                output.stdout.print(f"wrote {conversions[name](source, out)}", markup=False, soft_wrap=True)
                return
    raise unknown("conversion", conversion, offered())


def offered() -> list[str]:
    """The conversions of all plugins that can be imported."""
    found = []
    for kind in registry.KINDS:
        for plugin in registry.names(kind):
            try:
                found += [f"{plugin}-{name}" for name in registry.get(kind, plugin).conversions]
            except RefcoreError:
                continue
    return found

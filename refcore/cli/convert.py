"""`refcore convert`: the conversions that plugin classes offer (`Plugin.conversions`)."""

from __future__ import annotations

from pathlib import Path

from refcore import registry
from refcore.cli.output import stdout
from refcore.errors import RefcoreError, unknown


def run(conversion: str, source: Path, out: Path) -> None:
    """Runs a conversion: `blip2-itg` is `itg` of the plugin `blip2`; both names may have hyphens."""
    for kind in registry.KINDS:
        for plugin in registry.names(kind):
            name = conversion.removeprefix(f"{plugin}-")
            if name == conversion:
                continue
            conversions = registry.get(kind, plugin).conversions
            if name in conversions:
                stdout.print(f"wrote {conversions[name](source, out)}", soft_wrap=True)
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

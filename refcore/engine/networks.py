"""The networks of a loaded plugin, found in its attributes, whatever these are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from refcore.plugin import Plugin


def networks(plugin: Plugin, shared: bool = False) -> list[nn.Module]:
    """The modules in a plugin's attributes, each once; those that it shares (`Plugin.shares`) only with `shared`.

    Lists, tuples and dicts are looked into, and objects of classes of the plugin's own packages. Modules that are held
    in another way, in a closure for example, are not found; what uses this function leaves them as they are.
    """
    packages = {cls.__module__.partition(".")[0] for cls in type(plugin).__mro__} - {"builtins", "abc"}
    own = [value for name, value in vars(plugin).items() if shared or name not in plugin.shares]
    return list(_found(own, packages, set()))


def _found(value: Any, packages: set[str], seen: set[int]) -> Iterator[nn.Module]:
    if id(value) in seen or isinstance(value, (str, bytes, Tensor, type)):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        for held in list(value.values()):
            yield from _found(held, packages, seen)
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from _found(held, packages, seen)
    elif type(value).__module__.partition(".")[0] in packages:
        yield from _found(getattr(value, "__dict__", {}), packages, seen)


def tensors(plugin: Plugin) -> list[Tensor]:
    """Parameters and buffers of `networks`, each once."""
    found = {id(one): one for network in networks(plugin) for one in (*network.parameters(), *network.buffers())}
    return list(found.values())

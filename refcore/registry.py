"""The registry: which referees, priors, augmentations and canvases exist, by name; classes are imported on demand.

Packages register through the entry-point group `refcore` (the shipped plugins too) and the hooks of `refcore.hooks`.
Entry points are iterated here, not by pluggy, so that one that fails is a row of `refcore plugins` and not a crash: a
broken plugin is fatal only to a config that names it.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, get_args

import pluggy

from refcore.hooks import PROJECT, Specs
from refcore.names import unknown
from refcore.plugin import Plugin, RefcoreError

Kind = Literal["referees", "priors", "augmentations", "canvases"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ORDER: dict[str, int] = {kind: i for i, kind in enumerate(KINDS)}
SINGULAR: dict[str, str] = {
    "referees": "referee",
    "priors": "prior",
    "augmentations": "augmentation",
    "canvases": "canvas",
}
CONTRACTS: dict[str, str] = {
    "referees": "refcore.referee:Referee",
    "priors": "refcore.prior:Prior",
    "augmentations": "refcore.augmentation:Augmentation",
    "canvases": "refcore.canvas:Canvas",
}
"""Kind -> the base class that its plugins extend."""

IN_MEMORY = "in memory"
"""The distribution of what was registered from Python and not installed."""


@dataclass(frozen=True)
class Entry:
    """One registered name. `target` is a class, or where to import it from ("package.module:Class")."""

    kind: str
    name: str
    target: str | type[Plugin]
    summary: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Row:
    """One line of `refcore plugins`. `fields` and the import behind it are there after a check only."""

    kind: str
    """One of KINDS, or "entry point" for an entry point that failed before it registered anything."""
    name: str
    distribution: str
    version: str
    summary: str
    fields: tuple[str, ...] = ()
    """Names of the plugin's config fields."""
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "summary": self.summary,
            "fields": list(self.fields),
            "error": self.error,
        }


class Registry:
    """Names to classes. Entry points are read at the first question, plugin modules only by `get` and a check."""

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        """`entry_points`: those to read instead of the installed ones of the group `refcore`."""
        self._entry_points = entry_points
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._broken: list[Row] = []
        self._loaded = False
        self._hooks = pluggy.PluginManager(PROJECT)
        self._hooks.add_hookspecs(Specs)

    def get(self, kind: Kind, name: str, where: str = "") -> type[Any]:
        """The class registered as `name`, imported now; its `name` is set.

        Args:
            kind: one of KINDS.
            name: as a config has it.
            where: the config field that asks, for the message: "referees[0]".

        Raises:
            RefcoreError: no such name; two packages claim it; its import fails or does not give such a plugin.
        """
        entries = self._of_kind(kind)
        if name not in entries:
            raise self._unknown(kind, name, where)
        return _import(entries[name], where)

    def names(self, kind: Kind) -> list[str]:
        """The known names of a kind, sorted."""
        return sorted(self._of_kind(kind))

    def rows(self, check: bool = False) -> list[Row]:
        """Every plugin, by kind and name, then the entry points that failed. `check` imports each."""
        self._load()
        rows = []
        for (kind, name), claims in sorted(self._entries.items(), key=lambda item: (_ORDER[item[0][0]], item[0][1])):
            for entry in claims:
                fields: tuple[str, ...] = ()
                error = str(_conflict(claims)) if len(claims) > 1 else None
                if check and error is None:
                    try:
                        fields = tuple(_import(entry).Config.model_fields)
                    except RefcoreError as broken:
                        error = str(broken)
                rows.append(Row(kind, name, entry.distribution, entry.version, entry.summary, fields, error))
        return rows + self._broken

    def register(self, kind: Kind, name: str, target: str | type[Plugin], summary: str = "") -> None:
        """Registers one class from Python, for this process.

        Raises:
            RefcoreError: the name is taken, or the target is neither a class nor "package.module:Class".
        """
        self._load()
        entry = _entry(kind, name, target, summary, IN_MEMORY, "")
        if taken := self._entries.get((kind, name)):
            raise _conflict([*taken, entry])
        self._entries[kind, name] = [entry]

    def unregister(self, kind: Kind, name: str) -> None:
        """Forgets a name, wherever it came from.

        Raises:
            RefcoreError: no such name.
        """
        self._load()
        if (kind, name) not in self._entries:
            raise self._unknown(kind, name)
        del self._entries[kind, name]

    def add(self, plugin: object, distribution: str = IN_MEMORY, version: str = "") -> None:
        """Reads the hooks of a plugin: a module or any object with `hookimpl` methods. All of it counts, or nothing.

        Raises:
            RefcoreError: it has no hooks, an unknown hook, or a hook that fails.
        """
        collected: list[Entry] = []
        try:
            self._hooks.register(plugin)
            self._hooks.check_pending()
            if not self._hooks.get_hookcallers(plugin):
                raise RefcoreError(
                    f"it has no hooks; expected functions with @refcore.hooks.hookimpl: {', '.join(_hook_names())}"
                )
            others = [p for p in self._hooks.get_plugins() if p is not plugin]
            for kind in KINDS:

                def register(name: str, target: str | type[Plugin], summary: str = "", kind: str = kind) -> None:
                    collected.append(_entry(kind, name, target, summary, distribution, version))

                self._hooks.subset_hook_caller(f"register_{kind}", others)(register=register)
        except Exception as cause:
            if self._hooks.is_registered(plugin):
                self._hooks.unregister(plugin)
            origin = f"{distribution} {version}".strip()
            raise RefcoreError(f"the plugin of {origin} is broken: {_told(cause)}") from cause
        for entry in collected:
            self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        found = metadata.entry_points(group=PROJECT) if self._entry_points is None else self._entry_points
        for point in found:
            distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
            try:
                self.add(point.load(), distribution, version)
            except (Exception, SystemExit) as cause:
                error = str(cause) if isinstance(cause, RefcoreError) else f"{point.value}: {_told(cause)}"
                self._broken.append(Row("entry point", point.name, distribution, version, "", error=error))

    def _of_kind(self, kind: Kind) -> dict[str, list[Entry]]:
        if kind not in KINDS:
            raise unknown("kind of plugin", kind, KINDS)
        self._load()
        return {name: claims for (k, name), claims in self._entries.items() if k == kind}

    def _unknown(self, kind: Kind, name: str, where: str = "") -> RefcoreError:
        error = unknown(SINGULAR[kind], name, self.names(kind), where)
        if not self._broken:
            return error
        failed = ", ".join(row.distribution for row in self._broken)
        return RefcoreError(f"{error} (the plugins of {failed} failed to load: see `refcore plugins`)")


def _hook_names() -> list[str]:
    return [f"register_{kind}" for kind in KINDS]


def _entry(kind: str, name: str, target: Any, summary: str, distribution: str, version: str) -> Entry:
    if kind not in KINDS:
        raise unknown("kind of plugin", kind, KINDS)
    is_path = isinstance(target, str) and target.count(":") == 1
    if not (is_path or (isinstance(target, type) and issubclass(target, Plugin))):
        raise RefcoreError(
            f'{SINGULAR[kind]} "{name}" is registered as {target!r}; expected a plugin class or "package.module:Class"'
        )
    return Entry(kind, name, target, summary, distribution, version)


def _conflict(claims: list[Entry]) -> RefcoreError:
    origins = " and ".join(claim.origin for claim in claims)
    return RefcoreError(
        f'{SINGULAR[claims[0].kind]} "{claims[0].name}" is registered twice: by {origins}; '
        "uninstall one of them, or register it under another name"
    )


def _import(claims: Entry | list[Entry], where: str = "") -> type[Any]:
    """The class behind an entry, or behind the one entry of a list."""
    if isinstance(claims, list):
        if len(claims) > 1:
            raise _conflict(claims)
        claims = claims[0]
    entry = claims
    label = f'{SINGULAR[entry.kind]} "{entry.name}"' + (f" in {where}" if where else "") + f" (from {entry.origin})"
    try:
        found: Any = pkgutil.resolve_name(entry.target) if isinstance(entry.target, str) else entry.target
        contract: type[Plugin] = pkgutil.resolve_name(CONTRACTS[entry.kind])
    except (Exception, SystemExit) as cause:
        raise RefcoreError(f"{label} cannot be imported: {_told(cause)}") from cause
    if not (inspect.isclass(found) and issubclass(found, contract)):
        raise RefcoreError(f"{label} is {found!r}; expected a subclass of {CONTRACTS[entry.kind].replace(':', '.')}")
    found.name = entry.name
    return found


def _told(cause: BaseException) -> str:
    """An exception on one line: its type, where the message alone would not say what went wrong."""
    told = " ".join(str(cause).split())
    return told if isinstance(cause, RefcoreError) else f"{type(cause).__name__}: {told}".removesuffix(": ")


_installed = Registry()
"""The one registry that configs are read against."""

get = _installed.get
names = _installed.names
rows = _installed.rows
register = _installed.register
unregister = _installed.unregister
add = _installed.add

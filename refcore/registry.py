"""The registry: which plugins (referees, priors, ...) and presets exist, by name; classes come on demand.

Packages register through the entry-point group `refcore` (the shipped plugins too) and the hooks of `refcore.hooks`.
Entry points are iterated here, not by pluggy, so that one that fails is a row of `refcore plugins` and not a crash: a
broken plugin is fatal only to a config that names it. A folder of plugin files (`refcore.folder`) is read only when it
is asked for.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from refcore import hooks
from refcore.errors import ApiVersionError, RefcoreError, unknown
from refcore.explain import validated
from refcore.folder import Source, sources
from refcore.hooks import PROJECT, Specs
from refcore.plugin import KINDS, SINGULAR, Kind, Plugin, PluginType

_ORDER: dict[str, int] = {kind: i for i, kind in enumerate(KINDS)}
PRESETS = "presets"
"""The hook of presets is registered to as the kinds are, but what it registers are files."""

IN_MEMORY = "in memory"
"""The distribution of what was registered from Python and not installed."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    `target` is a class, or where to import it from ("package.module:Class"); of a preset, the path of its file.
    """

    kind: str
    name: str
    target: str | type[Plugin] | Path
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
    """One of KINDS, or "entry point" or "file" for one that failed before it registered anything."""
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
        self._folders: set[Path] = set()
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

    def create(self, kind: Kind, name: str, config: Mapping[str, Any] | None = None, where: str = "") -> Any:
        """The plugin of a name with its own fields, not loaded.

        Args:
            kind: one of KINDS.
            name: as a config has it.
            config: the plugin's own fields; None for their defaults.
            where: the config field that asks, for messages: "referees.0".

        Raises:
            RefcoreError: as `get`; a field that the plugin does not have (a ConfigError).
        """
        cls = self.get(kind, name, where)
        return cls(validated(cls.Config, dict(config or {}), f"{where}.config" if where else "config"))

    def names(self, kind: Kind) -> list[str]:
        """The known names of a kind, sorted."""
        return sorted(self._of_kind(kind))

    def rows(self, check: bool = False) -> list[Row]:
        """Every plugin, by kind and name, then the entry points that failed. `check` imports each."""
        self._load()
        rows = []
        plugins = [(key, claims) for key, claims in self._entries.items() if key[0] != PRESETS]
        for (kind, name), claims in sorted(plugins, key=lambda item: (_ORDER[item[0][0]], item[0][1])):
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

    def entry(self, kind: Kind, name: str) -> Entry:
        """Where a name comes from; nothing is imported.

        Raises:
            RefcoreError: no such name, or two packages claim it.
        """
        entries = self._of_kind(kind)
        if name not in entries:
            raise self._unknown(kind, name)
        return _single(entries[name])

    def presets(self) -> dict[str, list[Entry]]:
        """The presets that packages registered: name -> who claims it. The files have not been read."""
        self._load()
        return {name: claims for (kind, name), claims in sorted(self._entries.items()) if kind == PRESETS}

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

    def name_of(self, cls: type[Plugin]) -> tuple[Kind, str]:
        """The kind of a plugin class, and the name that a config in this process has for it.

        That is its registered name. A class that no package registered, from a notebook say, is registered now under
        its own `name`, or else its class name in snake_case; a class of the same module and name takes the place of
        the one before, so that a cell can be run again.

        Raises:
            RefcoreError: it is no plugin class, or another plugin has its name.
        """
        kind = kind_of(cls)
        path = f"{cls.__module__}:{cls.__qualname__}"
        entries = self._of_kind(kind)
        for name, claims in entries.items():
            if any(claim.target is cls or claim.target == path for claim in claims):
                return kind, name
        name = own_name(cls)
        if name not in entries:
            self.register(kind, name, cls, first_line(cls))
            return kind, name
        taken = entries[name]
        if taken[0].distribution == IN_MEMORY and _path(taken[0].target) == path:
            self._entries[kind, name] = [_entry(kind, name, cls, first_line(cls), IN_MEMORY, "")]
        elif len(taken) > 1 or _import(taken) is not cls:  # a package may register what it imports from elsewhere
            raise RefcoreError(
                f'{cls.__qualname__} would be the {SINGULAR[kind]} "{name}", which {taken[0].origin} has registered; '
                f'give the class another name: name = "my_{name}"'
            )
        return kind, name

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
            RefcoreError: it has no hooks, an unknown hook, or a hook that fails; it was built for another version of
                the hooks and contracts (an ApiVersionError).
        """
        _check_api_version(plugin, f"{distribution} {version}".strip())
        collected: list[Entry] = []
        try:
            self._hooks.register(plugin)
            self._hooks.check_pending()
            if not self._hooks.get_hookcallers(plugin):
                raise RefcoreError(
                    f"it has no hooks; expected functions with @refcore.hooks.hookimpl: {', '.join(_hook_names())}"
                )
            others = [p for p in self._hooks.get_plugins() if p is not plugin]
            for kind in (*KINDS, PRESETS):

                def register(name: str, target: Any, summary: str = "", kind: str = kind) -> None:
                    make = _preset_entry if kind == PRESETS else _entry
                    collected.append(make(kind, name, target, summary, distribution, version))

                self._hooks.subset_hook_caller(f"register_{kind}", others)(register=register)
        except Exception as cause:
            if self._hooks.is_registered(plugin):
                self._hooks.unregister(plugin)
            origin = f"{distribution} {version}".strip()
            raise RefcoreError(f"the plugin of {origin} is broken: {_told(cause)}") from cause
        self._keep(collected)

    def add_folder(self, folder: str | Path) -> None:
        """Reads the plugin files of a folder: every `NAME.py` and `NAME/__init__.py` that does not start with "_".

        A file with hooks registers what they say. A file without registers the plugin classes that it defines, under
        their own `name` or their class name in snake_case. Reading a folder again does nothing. A file that fails is a
        row of `rows`.

        Raises:
            RefcoreError: there is no such folder, or no plugin file in it.
        """
        self._load()
        path = Path(folder).expanduser().resolve()
        if path in self._folders:
            return
        files = sources(path)
        self._folders.add(path)
        for file in files:
            try:
                self._add_file(file)
            except (Exception, SystemExit) as cause:
                self._broken.append(Row("file", file.name, file.origin, "", "", error=_told(cause)))

    def _add_file(self, file: Source) -> None:
        module = file.load()
        if any(hasattr(value, f"{PROJECT}_impl") for value in vars(module).values()):
            self.add(module, file.origin)
            return
        _check_api_version(module, file.origin)
        classes = [
            cls
            for name, cls in vars(module).items()
            if _is_plugin(cls) and cls.__module__ == module.__name__ and not name.startswith("_")
        ]
        if not classes:
            raise RefcoreError("it has neither hooks nor plugin classes; a file that only helps others starts with _")
        self._keep([_entry(kind_of(cls), own_name(cls), cls, first_line(cls), file.origin, "") for cls in classes])

    def _keep(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
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


def kind_of(cls: type[Any]) -> Kind:
    """The kind of a plugin class.

    Raises:
        RefcoreError: it extends none of the contracts.
    """
    kind: Kind | None = getattr(cls, "kind", None)
    if kind is None or not issubclass(cls, Plugin):
        expected = ", ".join(contract_name(kind) for kind in KINDS)
        raise RefcoreError(f"{cls.__qualname__} is not a plugin; expected a subclass of {expected}")
    return kind


def contract_name(kind: str) -> str:
    """The class that plugins of a kind extend, as users import it.

    >>> contract_name("canvases")
    'refcore.Canvas'
    """
    return f"refcore.{SINGULAR[kind].capitalize()}"


def as_use(value: Any) -> Any:
    """A plugin or plugin class as a config names it, `{"name": ..., "config": ...}`; anything else as it is.

    The config holds the fields that were set, and nothing else that an instance may have.

    Raises:
        RefcoreError: a class that extends none of the contracts, or whose name another plugin has.
    """
    is_class = isinstance(value, PluginType)
    if not is_class and not isinstance(value, Plugin):
        return value
    _, name = name_of(value if is_class else type(value))
    return {"name": name, "config": {} if is_class else value.config.model_dump(mode="json", exclude_unset=True)}


def own_name(cls: type[Plugin]) -> str:
    """The `name` that a class itself sets (an inherited one is another plugin's), or its class name in snake_case.

    >>> from refcore.plugin import KINDS, SINGULAR, Kind, Plugin, PluginType
    >>> own_name(type("EdgeSharpness", (Plugin,), {}))
    'edge_sharpness'
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower().strip("_")
    return str(vars(cls).get("name") or snake)


def first_line(cls: type[Any]) -> str:
    """The first line of a class's own docstring, "" where it has none."""
    return inspect.cleandoc(vars(cls).get("__doc__") or "").partition("\n")[0]


def _is_plugin(value: Any) -> bool:
    """Whether it is a class that extends one of the contracts."""
    return inspect.isclass(value) and issubclass(value, Plugin) and value.kind is not None


def _path(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def _check_api_version(plugin: object, origin: str) -> None:
    """Raises ApiVersionError where a plugin was built for another version; one that declares none is of the first."""
    version = getattr(plugin, "api_version", hooks.UNDECLARED)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ApiVersionError(
            f"the plugin of {origin} has api_version {version!r}; expected a whole number, "
            f"as this refcore's {hooks.API_VERSION}"
        )
    if version == hooks.API_VERSION:
        return
    declared = "" if hasattr(plugin, "api_version") else " (it declares none)"
    told = f"the plugin of {origin} was built for api_version {version}{declared}, this refcore has {hooks.API_VERSION}"
    if version > hooks.API_VERSION:
        raise ApiVersionError(f"{told}: it needs a newer refcore; pip install --upgrade refcore")
    changes = "; ".join(f"{v}: {what}" for v, what in sorted(hooks.API_CHANGES.items()) if v > version)
    raise ApiVersionError(f"{told}: install a newer release of it; changed since ({changes})")


def _hook_names() -> list[str]:
    return [f"register_{kind}" for kind in (*KINDS, PRESETS)]


def _preset_entry(kind: str, name: str, target: Any, summary: str, distribution: str, version: str) -> Entry:
    if not isinstance(target, (str, os.PathLike)):
        raise RefcoreError(f'preset "{name}" is registered as {target!r}; expected the path of a YAML file')
    return Entry(kind, name, Path(target), summary, distribution, version)


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
        f'{SINGULAR.get(claims[0].kind, "preset")} "{claims[0].name}" is registered twice: by {origins}; '
        "uninstall one of them, or register it under another name"
    )


def _single(claims: list[Entry]) -> Entry:
    if len(claims) > 1:
        raise _conflict(claims)
    return claims[0]


def _import(claims: Entry | list[Entry], where: str = "") -> type[Any]:
    """The class behind an entry, or behind the one entry of a list."""
    entry = _single(claims) if isinstance(claims, list) else claims
    label = f'{SINGULAR[entry.kind]} "{entry.name}"' + (f" in {where}" if where else "") + f" (from {entry.origin})"
    try:
        found: Any = pkgutil.resolve_name(entry.target) if isinstance(entry.target, str) else entry.target
    except (Exception, SystemExit) as cause:
        raise RefcoreError(f"{label} cannot be imported: {_told(cause)}") from cause
    if not (_is_plugin(found) and found.kind == entry.kind):
        raise RefcoreError(f"{label} is {found!r}; expected a subclass of {contract_name(entry.kind)}")
    found.name = entry.name
    return found


def _told(cause: BaseException) -> str:
    """An exception on one line: its type, where the message alone would not say what went wrong."""
    told = " ".join(str(cause).split())
    return told if isinstance(cause, RefcoreError) else f"{type(cause).__name__}: {told}".removesuffix(": ")


_installed = Registry()
"""The one registry that configs are read against."""

get = _installed.get
create = _installed.create
names = _installed.names
rows = _installed.rows
entry = _installed.entry
presets = _installed.presets
name_of = _installed.name_of
register = _installed.register
unregister = _installed.unregister
add = _installed.add
add_folder = _installed.add_folder

"""The registry: installed plugins (referees, priors, ...) and presets by name; classes are imported on demand.

Packages, the shipped plugins included, register through the entry-point group `refcore` and the hooks of
`refcore.hooks`. Entry points are iterated here, not by pluggy, so that a broken one is a row of `refcore plugins` and
no crash: it is fatal only to a config that names it. A folder of plugin files (`refcore.folder`) is read on request.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from os.path import expanduser
from pathlib import Path
from typing import Any

import pluggy

from refcore import hooks
from refcore.errors import ApiVersionError, RefcoreError, described, unknown
from refcore.explain import validated
from refcore.folder import PluginFile, plugin_files
from refcore.hooks import PROJECT, HookSpecs
from refcore.plugin import KINDS as KINDS
from refcore.plugin import SINGULAR as SINGULAR
from refcore.plugin import Kind as Kind
from refcore.plugin import Plugin, PluginType

_ORDER: dict[str, int] = {kind: i for i, kind in enumerate(KINDS)}
PRESETS = "presets"
"""Registered by a hook as the kinds of plugins are, but as files instead of classes."""

IN_MEMORY = "in memory"
"""The distribution of plugins that are registered from Python, not installed."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    `target` is a class, its import path ("package.module:Class"), or a preset's file.
    """

    kind: str
    name: str
    target: str | type[Plugin] | Path
    summary: str
    distribution: str
    version: str
    conversions: tuple[str, ...] = ()
    """Those of `Plugin.conversions` that were given at registration, so that nothing is imported to list them."""

    @property
    def origin(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Row:
    """One line of `refcore plugins`; only a check, which imports the plugin, fills in `fields`."""

    kind: str
    """One of KINDS, or "entry point" or "file" if it failed before it registered anything."""
    name: str
    distribution: str
    version: str
    summary: str
    fields: tuple[str, ...] = ()
    """The names of the plugin's config fields."""
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
    """Names to plugin classes. Entry points are read on first use, plugin modules only by `get` and by a check."""

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        """`entry_points`: read in place of the installed ones of the group `refcore`."""
        self._entry_points = entry_points
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._broken: list[Row] = []
        self._folders: set[Path] = set()
        self._loaded = False
        self._hooks = pluggy.PluginManager(PROJECT)
        self._hooks.add_hookspecs(HookSpecs)

    def get(self, kind: Kind, name: str, where: str = "") -> type[Any]:
        """The class registered as `name`, imported now, with its `name` set.

        Args:
            kind: one of KINDS.
            name: registered name.
            where: the config field that names it, for the message: "referees[0]".

        Raises:
            RefcoreError: the name is unknown or registered twice, or its import fails or yields no plugin of this kind.
        """
        entries = self._of_kind(kind)
        if name not in entries:
            raise self._unknown(kind, name, where)
        return _import(entries[name], where)

    def create(self, kind: Kind, name: str, config: Mapping[str, Any] | None = None, where: str = "") -> Any:
        """A new plugin of a registered name, not loaded.

        Args:
            kind: one of KINDS.
            name: registered name.
            config: the plugin's own fields; None for the defaults.
            where: the config field that names it, for messages: "referees.0".

        Raises:
            RefcoreError: as for `get`; a ConfigError if a field is unknown or wrong.
        """
        cls = self.get(kind, name, where)
        return cls(validated(cls.Config, dict(config or {}), f"{where}.config" if where else "config"))

    def names(self, kind: Kind) -> list[str]:
        """The registered names of a kind, sorted."""
        return sorted(self._of_kind(kind))

    def rows(self, check: bool = False) -> list[Row]:
        """Every plugin by kind and name, then the entry points that failed. `check` imports each plugin."""
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
        """The entry of a name; nothing is imported.

        Raises:
            RefcoreError: the name is unknown or registered twice.
        """
        entries = self._of_kind(kind)
        if name not in entries:
            raise self._unknown(kind, name)
        return _single(entries[name])

    def load_without_weights(self, plugin: Plugin, device: Any, dtype: Any, size: tuple[int, int] | None) -> Any:
        """What the hook of that name returns first; None where no package knows the plugin's shapes."""
        self._load()
        return self._hooks.hook.load_without_weights(plugin=plugin, device=device, dtype=dtype, size=size)

    def presets(self) -> dict[str, list[Entry]]:
        """Registered presets: name -> its entries, several if packages collide. The files are not read."""
        self._load()
        return {name: claims for (kind, name), claims in sorted(self._entries.items()) if kind == PRESETS}

    def register(self, kind: Kind, name: str, target: str | type[Plugin], summary: str = "") -> None:
        """Registers a class for this process.

        Raises:
            RefcoreError: the name is taken, or the target is neither a plugin class nor "package.module:Class".
        """
        self._load()
        entry = _entry(kind, name, target, summary, IN_MEMORY, "")
        if taken := self._entries.get((kind, name)):
            raise _conflict([*taken, entry])
        self._entries[kind, name] = [entry]

    def name_of(self, cls: type[Plugin]) -> tuple[Kind, str]:
        """(kind, registered name) of a plugin class.

        An unregistered class, from a notebook for example, is registered now, under its own `name` or else its class
        name in snake_case. It replaces an earlier class of the same module and class name, so that a cell can be run
        again.

        Raises:
            RefcoreError: the class is not a plugin, or another plugin has its name.
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
                f'{cls.__qualname__} would be the {SINGULAR[kind]} "{name}", but that name is taken '
                f'({taken[0].origin}); give the class another name: name = "my_{name}"'
            )
        return kind, name

    def unregister(self, kind: Kind, name: str) -> None:
        """Removes a name, whoever registered it.

        Raises:
            RefcoreError: the name is unknown.
        """
        self._load()
        if (kind, name) not in self._entries:
            raise self._unknown(kind, name)
        del self._entries[kind, name]

    def add(self, plugin: object, distribution: str = IN_MEMORY, version: str = "") -> None:
        """Registers what the hooks of `plugin` register: all of it, or nothing.

        Args:
            plugin: a module, or any object, with `hookimpl` functions.
            distribution: who provides it, for `refcore plugins`.
            version: of the distribution.

        Raises:
            RefcoreError: it has no hooks, an unknown hook, or a hook that fails; an ApiVersionError if it was written
                for another version of the hooks and contracts.
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

                def register(
                    name: str, target: Any, summary: str = "", conversions: Sequence[str] = (), kind: str = kind
                ) -> None:
                    make = _preset_entry if kind == PRESETS else _entry
                    made = make(kind, name, target, summary, distribution, version)
                    collected.append(replace(made, conversions=tuple(conversions)))

                self._hooks.subset_hook_caller(f"register_{kind}", others)(register=register)
        except Exception as cause:
            if self._hooks.is_registered(plugin):
                self._hooks.unregister(plugin)
            origin = f"{distribution} {version}".strip()
            raise RefcoreError(f"the plugin of {origin} is broken: {described(cause)}") from cause
        self._keep(collected)

    def add_folder(self, folder: str | Path) -> None:
        """Registers the plugins in a folder: every `NAME.py` and `NAME/__init__.py` that does not start with "_".

        A file with hooks registers through them; one without registers the plugin classes that it defines, under
        their own `name` or their class name in snake_case. A second call with the same folder does nothing. A file
        that fails is one of the `rows`.

        Raises:
            RefcoreError: the folder does not exist, or has no plugin file.
        """
        self._load()
        path = Path(expanduser(folder)).resolve()
        if path in self._folders:
            return
        files = plugin_files(path)
        self._folders.add(path)
        for file in files:
            try:
                self._add_file(file)
            except (Exception, SystemExit) as cause:
                self._broken.append(Row("file", file.name, file.origin, "", "", error=described(cause)))

    def _add_file(self, file: PluginFile) -> None:
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
            raise RefcoreError(
                "it has neither hooks nor plugin classes; start the name of a file without plugins with _"
            )
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
                plugin = point.load()
                _check_api_version(plugin, f"{distribution} {version}".strip(), hooks.UNDECLARED)
                self.add(plugin, distribution, version)
            except (Exception, SystemExit) as cause:
                error = str(cause) if isinstance(cause, RefcoreError) else f"{point.value}: {described(cause)}"
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
        RefcoreError: the class extends none of the contracts.
    """
    kind: Kind | None = getattr(cls, "kind", None)
    if kind is None or not issubclass(cls, Plugin):
        expected = ", ".join(contract_name(kind) for kind in KINDS)
        raise RefcoreError(f"{cls.__qualname__} is not a plugin; expected a subclass of {expected}")
    return kind


def contract_name(kind: str) -> str:
    """The public name of the class that plugins of a kind extend.

    >>> contract_name("canvases")
    'refcore.Canvas'
    """
    return f"refcore.{SINGULAR[kind].capitalize()}"


def contract(kind: str) -> type[Plugin]:
    """The class that plugins of a kind extend, imported now."""
    module, _, name = contract_name(kind).partition(".")
    found: type[Plugin] = getattr(import_module(module), name)
    return found


def as_plugin_use(value: Any) -> Any:
    """A plugin or plugin class as the `{"name": ..., "config": ...}` of a config; anything else unchanged.

    The config holds the fields that were set explicitly.

    Raises:
        RefcoreError: the class extends none of the contracts, or another plugin has its name.
    """
    is_class = isinstance(value, PluginType)
    if not is_class and not isinstance(value, Plugin):
        return value
    _, name = name_of(value if is_class else type(value))
    # Whole fields: `exclude_unset` would leave out what is a default within them, such as the kind of a schedule.
    given = set() if is_class else value.config.model_fields_set
    return {"name": name, "config": {} if is_class else value.config.model_dump(mode="json", include=given)}


def own_name(cls: type[Plugin]) -> str:
    """The `name` that the class itself sets, not inherits, or else its class name in snake_case.

    >>> from refcore.plugin import Plugin
    >>> own_name(type("EdgeSharpness", (Plugin,), {}))
    'edge_sharpness'
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower().strip("_")
    return str(vars(cls).get("name") or snake)


def first_line(cls: type[Any]) -> str:
    """The first line of a class's own docstring, "" without one."""
    return inspect.cleandoc(vars(cls).get("__doc__") or "").partition("\n")[0]


def _is_plugin(value: Any) -> bool:
    """Whether the value is a class that extends one of the contracts."""
    return inspect.isclass(value) and issubclass(value, Plugin) and value.kind is not None


def _path(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def _check_api_version(plugin: object, origin: str, undeclared: int | None = None) -> None:
    """Raises ApiVersionError if a plugin was written for another version than this one.

    `undeclared` is the version of one that declares none; None: this one.
    """
    version = getattr(plugin, "api_version", hooks.API_VERSION if undeclared is None else undeclared)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ApiVersionError(
            f"the plugin of {origin} has api_version {version!r}; expected a whole number, "
            f"such as {hooks.API_VERSION}, the version of this refcore"
        )
    if version == hooks.API_VERSION:
        return
    declared = "" if hasattr(plugin, "api_version") else " (it declares none)"
    found = (
        f"the plugin of {origin} was written for api_version {version}{declared}, "
        f"and this refcore has {hooks.API_VERSION}"
    )
    if version > hooks.API_VERSION:
        raise ApiVersionError(f"{found}; it needs a newer refcore: pip install --upgrade refcore")
    changes = "; ".join(f"{v}: {what}" for v, what in sorted(hooks.API_CHANGES.items()) if v > version)
    raise ApiVersionError(
        f"{found}; install a newer release of the plugin, or change it and set api_version = {hooks.API_VERSION} "
        f"({changes})"
    )


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
    """The class of an entry, or of the only entry in a list."""
    entry = _single(claims) if isinstance(claims, list) else claims
    label = f'{SINGULAR[entry.kind]} "{entry.name}"' + (f" in {where}" if where else "") + f" (from {entry.origin})"
    try:
        found: Any = pkgutil.resolve_name(entry.target) if isinstance(entry.target, str) else entry.target
    except (Exception, SystemExit) as cause:
        raise RefcoreError(f"{label} cannot be imported: {described(cause)}") from cause
    if not (_is_plugin(found) and found.kind == entry.kind):
        raise RefcoreError(f"{label} is {found!r}; expected a subclass of {contract_name(entry.kind)}")
    cls: type[Any] = found
    cls.name = entry.name
    return cls


_installed = Registry()
"""The registry of this process, against which configs are resolved."""

get = _installed.get
create = _installed.create
names = _installed.names
rows = _installed.rows
entry = _installed.entry
presets = _installed.presets
load_without_weights = _installed.load_without_weights
name_of = _installed.name_of
register = _installed.register
unregister = _installed.unregister
add = _installed.add
add_folder = _installed.add_folder

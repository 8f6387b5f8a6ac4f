"""A folder of plugin files: modules of one synthetic package, so that they can import each other relatively."""

from __future__ import annotations

import hashlib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from refcore.errors import RefcoreError

LOCAL = Path("refcore-plugins")
"""The project's own folder of plugin files, under the working directory; read only when it is asked for."""


@dataclass(frozen=True)
class Source:
    """A plugin file, `NAME.py` or `NAME/__init__.py`, of a folder."""

    folder: Path
    name: str

    @property
    def origin(self) -> str:
        """What `refcore plugins` has in the place of a distribution: the folder's name and the file's."""
        file = Path(self.folder.name, self.name)
        return f"{file}.py" if (self.folder / f"{self.name}.py").is_file() else f"{file}/"

    def load(self) -> ModuleType:
        """Imports the file; `from . import other` finds its neighbours, and `sys.path` stays as it is."""
        package = "refcore_folder_" + hashlib.blake2b(str(self.folder).encode(), digest_size=6).hexdigest()
        if package not in sys.modules:
            module = ModuleType(package, f"The plugin files of {self.folder}.")
            module.__path__ = [str(self.folder)]
            sys.modules[package] = module
        importlib.invalidate_caches()
        return importlib.import_module(f"{package}.{self.name}")


def sources(folder: Path) -> list[Source]:
    """The plugin files of a folder, sorted; what starts with "_" or "." or is no module name is not one.

    Raises:
        RefcoreError: there is no such folder, or no plugin file in it.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise RefcoreError(f'the plugins folder "{folder}" {state}; expected a folder with plugin files (NAME.py)')
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    found = sorted(name for name in names if name.isidentifier() and not name.startswith("_"))
    if not found:
        raise RefcoreError(f'the plugins folder "{folder}" holds no plugin file; expected NAME.py or NAME/__init__.py')
    return [Source(folder, name) for name in found]

"""Plugin files in a folder, without an installed package; `from . import other` works between them."""

from __future__ import annotations

import hashlib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from refcore.errors import RefcoreError

LOCAL_FOLDER = Path("refcore-plugins")
"""A project's own plugin files, under the working directory; read only with `--local-plugins`."""


@dataclass(frozen=True)
class PluginFile:
    """A plugin file of a folder: `NAME.py` or `NAME/__init__.py`."""

    folder: Path
    name: str

    @property
    def origin(self) -> str:
        """FOLDER/NAME.py or FOLDER/NAME/, which `refcore plugins` lists as the distribution."""
        file = Path(self.folder.name, self.name)
        return f"{file}.py" if (self.folder / f"{self.name}.py").is_file() else f"{file}/"

    def load(self) -> ModuleType:
        """Imports the file as a module of a package made for its folder; `sys.path` is not changed."""
        package = "refcore_folder_" + hashlib.blake2b(str(self.folder).encode(), digest_size=6).hexdigest()
        if package not in sys.modules:
            module = ModuleType(package, f"The plugin files of {self.folder}.")
            module.__path__ = [str(self.folder)]
            sys.modules[package] = module
        importlib.invalidate_caches()
        return importlib.import_module(f"{package}.{self.name}")


def plugin_files(folder: Path) -> list[PluginFile]:
    """The plugin files of a folder, sorted; names that start with "_" or are not module names are left out.

    Raises:
        RefcoreError: the folder does not exist, or has no plugin file.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise RefcoreError(f'the plugins folder "{folder}" {state}; expected a folder with plugin files (NAME.py)')
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    found = sorted(name for name in names if name.isidentifier() and not name.startswith("_"))
    if not found:
        raise RefcoreError(f'the plugins folder "{folder}" has no plugin file; expected NAME.py or NAME/__init__.py')
    return [PluginFile(folder, name) for name in found]

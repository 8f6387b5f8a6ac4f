"""Plugins are found by name, imported on demand, and break nothing but the config that names them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest

from refcore.augmentation import Augmentation
from refcore.hooks import hookimpl
from refcore.plugin import RefcoreError
from refcore.registry import KINDS, Registry


class Blur(Augmentation):
    """Does nothing; a test only wants its name."""


class BlurPlugin:
    @hookimpl
    def register_augmentations(self, register):
        register("blur", Blur, summary="nothing")


@pytest.fixture
def empty():
    return Registry(entry_points=[])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package: a module beside a real dist-info with an entry point, on sys.path."""

    def write(name: str, source: str, version: str = "1.2.3") -> Registry:
        (tmp_path / f"{name}.py").write_text(dedent(source))
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[refcore]\n{name} = {name}\n")
        for module in [m for m in sys.modules if m == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.syspath_prepend(str(tmp_path))
        return Registry()

    return write


SHARPNESS = """
    from refcore.hooks import hookimpl

    @hookimpl
    def register_augmentations(register):
        register("sharpen", "{target}", summary="Sharpens")
"""


def test_the_shipped_plugins_come_through_an_entry_point():
    rows = Registry().rows()
    assert {"clip", "blip2", "imagenet", "sds", "tv", "l2", "affine", "latent", "multires"} <= {
        row.name for row in rows
    }
    assert {row.distribution for row in rows if row.name == "clip"} == {"refcore"}
    assert [p.value for p in metadata.entry_points(group="refcore") if p.name == "shipped"] == [
        "refcore_plugins.registration"
    ]


def test_every_shipped_class_can_be_imported_and_knows_its_name():
    rows = [row for row in Registry().rows(check=True) if row.distribution == "refcore"]
    assert [row.error for row in rows if row.error] == []


def test_listing_imports_no_plugin_and_no_model_library():
    code = (
        "import sys, json; from refcore.registry import rows; rows(); "
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'transformers', 'diffusers', 'open_clip', 'kornia') or m.startswith('refcore_plugins.')]))"
    )
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert loaded == ["refcore_plugins.registration"]


def test_an_installed_package_is_found_with_its_version_and_imported_on_demand(install):
    registry = install("refcore_sharp", SHARPNESS.format(target="refcore_sharp_impl:Sharpen"))
    (row,) = [row for row in registry.rows() if row.name == "sharpen"]
    assert (row.kind, row.distribution, row.version, row.summary) == (
        "augmentations",
        "refcore_sharp",
        "1.2.3",
        "Sharpens",
    )
    assert "refcore_sharp_impl" not in sys.modules


def test_a_module_with_a_failing_import_is_fatal_only_to_a_config_that_names_it(install):
    registry = install("refcore_sharp", SHARPNESS.format(target="refcore_sharp_missing:Sharpen"))
    assert registry.get("augmentations", "affine").name == "affine"
    with pytest.raises(
        RefcoreError, match=r'augmentation "sharpen" in views\.main.*refcore_sharp 1\.2\.3.*No module named'
    ):
        registry.get("augmentations", "sharpen", "views.main.augment[0]")
    (row,) = [row for row in registry.rows(check=True) if row.name == "sharpen"]
    assert "No module named 'refcore_sharp_missing'" in row.error


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise RuntimeError('no licence')", "no licence"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("x = 1", "no hooks"),
        (
            "from refcore.hooks import hookimpl\n@hookimpl\ndef register_referee(register): pass",
            "register_referee",
        ),
        (
            "from refcore.hooks import hookimpl\n@hookimpl\ndef register_priors(register): register('a', 'b')",
            "package.module:Class",
        ),
    ],
)
def test_a_broken_entry_point_is_a_row_and_not_a_crash(install, source, told):
    registry = install("refcore_broken", source)
    (row,) = [row for row in registry.rows() if row.name == "refcore_broken"]
    assert row.kind == "entry point"
    assert told in row.error
    assert "clip" in registry.names("referees")
    with pytest.raises(RefcoreError, match="refcore_broken failed to load"):
        registry.get("priors", "nonesuch")


def test_an_unknown_name_is_answered_with_the_known_and_the_nearest():
    with pytest.raises(RefcoreError) as told:
        Registry().get("referees", "clp", "referees[0]")
    assert str(told.value) == (
        'unknown referee "clp" in referees[0]; known: blip2, clip, imagenet; did you mean "clip"?'
    )


def test_a_name_claimed_by_two_packages_is_refused_naming_both_and_spares_the_others(install):
    registry = install(
        "refcore_clash",
        """
        from refcore.hooks import hookimpl

        @hookimpl
        def register_augmentations(register):
            register("affine", "refcore_clash:Affine")
        """,
    )
    with pytest.raises(
        RefcoreError, match=r"refcore 0\.1\.0 and refcore_clash 1\.2\.3|refcore_clash 1\.2\.3 and refcore"
    ):
        registry.get("augmentations", "affine")
    assert registry.get("augmentations", "shift").name == "shift"
    assert all("registered twice" in row.error for row in registry.rows() if row.name == "affine")


def test_a_class_is_registered_in_memory_used_and_forgotten(empty):
    empty.register("augmentations", "blur", Blur, "nothing")
    assert empty.get("augmentations", "blur") is Blur
    assert Blur.name == "blur"
    with pytest.raises(RefcoreError, match="registered twice"):
        empty.register("augmentations", "blur", Blur)
    empty.unregister("augmentations", "blur")
    assert empty.names("augmentations") == []


def test_a_plugin_object_is_added_without_installing_it(empty):
    empty.add(BlurPlugin())
    assert empty.names("augmentations") == ["blur"]
    assert empty.rows(check=True)[0].distribution == "in memory"


def test_a_plugin_of_another_kind_is_refused(empty):
    empty.register("referees", "blur", Blur)
    with pytest.raises(RefcoreError, match=r"expected a subclass of refcore\.referee\.Referee"):
        empty.get("referees", "blur")
    with pytest.raises(RefcoreError, match="expected a plugin class"):
        empty.register("referees", "blurry", int)


def test_an_unknown_kind_is_refused(empty):
    with pytest.raises(RefcoreError, match=f"known: {', '.join(sorted(KINDS))}"):
        empty.get("referee", "clip")


def test_names_are_independent_of_the_working_directory(tmp_path: Path):
    code = "from refcore.registry import names; print(*names('canvases'))"
    listed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
    assert listed.split() == Registry().names("canvases")

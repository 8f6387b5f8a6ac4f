"""Plugins are found by name, imported on demand, and break nothing but the config that names them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest

from refcore import hooks
from refcore.config import presets
from refcore.contracts.augmentation import Augmentation
from refcore.errors import RefcoreError
from refcore.hooks import API_CHANGES, API_VERSION, hookimpl
from refcore.registry import KINDS, Registry


class Blur(Augmentation):
    """Does nothing; only its name is tested."""


class BlurPlugin:
    @hookimpl
    def register_augmentations(self, register):
        register("blur", Blur, summary="nothing")


@pytest.fixture
def empty():
    return Registry(entry_points=[])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package on sys.path: a module with a real dist-info and entry point."""

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

    {declared}

    @hookimpl
    def register_augmentations(register):
        register("sharpen", "{target}", summary="Sharpens")
"""


def sharpness(target: str, declared: str = f"api_version = {API_VERSION}") -> str:
    return SHARPNESS.format(target=target, declared=declared)


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
    registry = install("refcore_sharp", sharpness(target="refcore_sharp_impl:Sharpen"))
    (row,) = [row for row in registry.rows() if row.name == "sharpen"]
    assert (row.kind, row.distribution, row.version, row.summary) == (
        "augmentations",
        "refcore_sharp",
        "1.2.3",
        "Sharpens",
    )
    assert "refcore_sharp_impl" not in sys.modules


def test_a_module_with_a_failing_import_is_fatal_only_to_a_config_that_names_it(install):
    registry = install("refcore_sharp", sharpness(target="refcore_sharp_missing:Sharpen"))
    assert registry.get("augmentations", "affine").name == "affine"
    with pytest.raises(
        RefcoreError, match=r'augmentation "sharpen" in views\.main.*refcore_sharp 1\.2\.3.*No module named'
    ):
        registry.get("augmentations", "sharpen", "views.main.augment[0]")
    (row,) = [row for row in registry.rows(check=True) if row.name == "sharpen"]
    assert "No module named 'refcore_sharp_missing'" in row.error


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('no licence')", "no licence"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("api_version = 2", "no hooks"),
        (
            "from refcore.hooks import hookimpl\napi_version = 2\n@hookimpl\ndef register_referee(register): pass",
            "register_referee",
        ),
        (
            "from refcore.hooks import hookimpl\napi_version = 2\n"
            "@hookimpl\ndef register_priors(register): register('a', 'b')",
            "package.module:Class",
        ),
    ],
)
def test_a_broken_entry_point_is_a_row_and_not_a_crash(install, source, message):
    registry = install("refcore_broken", source)
    (row,) = [row for row in registry.rows() if row.name == "refcore_broken"]
    assert row.kind == "entry point"
    assert message in row.error
    assert "clip" in registry.names("referees")
    with pytest.raises(RefcoreError, match="refcore_broken failed to load"):
        registry.get("priors", "nonesuch")


def test_an_unknown_name_is_answered_with_the_known_and_the_nearest():
    with pytest.raises(RefcoreError) as caught:
        Registry().get("referees", "clp", "referees[0]")
    known = ", ".join(Registry().names("referees"))
    assert "blip2, classifier, clip" in known
    assert str(caught.value) == f'unknown referee "clp" in referees[0]; known: {known}; did you mean "clip"?'


def test_a_name_claimed_by_two_packages_is_refused_naming_both_and_spares_the_others(install):
    registry = install(
        "refcore_clash",
        """
        from refcore.hooks import hookimpl

        api_version = 2

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
    with pytest.raises(RefcoreError, match=r"expected a subclass of refcore\.Referee"):
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


PRESET = """
    from pathlib import Path
    from refcore.hooks import hookimpl

    api_version = 2

    @hookimpl
    def register_presets(register):
        register("{name}", Path(__file__).with_name("{file}"))
"""


class TestApiVersion:
    """A plugin for another version of the hooks and contracts is reported, and spares the others."""

    @pytest.mark.parametrize(
        ("declared", "ours", "message"),
        [
            (
                "api_version = 2",
                1,
                r"refcore_sharp 1\.2\.3 was written for api_version 2, and this refcore has 1.*--upgrade",
            ),
            ("api_version = 1", 3, r"written for api_version 1, and this refcore has 3; install a newer.*2: a; 3: b\)"),
            ("", 2, r"written for api_version 1 \(it declares none\), and this refcore has 2"),
            ("api_version = '1.0'", 1, r"has api_version '1\.0'; expected a whole number"),
            ("api_version = True", 1, r"expected a whole number"),
        ],
    )
    def test_a_mismatch_is_reported_in_a_row(self, install, monkeypatch, declared, ours, message):
        registry = install("refcore_sharp", dedent(sharpness("a:B", declared)))
        monkeypatch.setattr(hooks, "API_VERSION", ours)
        monkeypatch.setattr(hooks, "API_CHANGES", {1: "first", 2: "a", 3: "b"})
        (row,) = [row for row in registry.rows() if row.name == "refcore_sharp"]
        assert row.kind == "entry point"
        assert re.search(message, row.error)
        assert not [row for row in registry.rows() if row.name == "sharpen"]

    @pytest.mark.fault("4.14")
    @pytest.mark.parametrize("declared", ["api_version = 1", ""])
    def test_a_package_from_before_the_moment_is_told_what_changed(self, install, declared):
        registry = install("refcore_sharp", dedent(sharpness("a:B", declared)))
        (row,) = [row for row in registry.rows() if row.name == "refcore_sharp"]
        assert "written for api_version 1" in row.error
        assert "at: refcore.Moment" in row.error
        assert "set api_version = 2" in row.error
        assert "\n" not in row.error

    @pytest.mark.fault("4.14")
    def test_what_is_not_installed_need_not_declare_a_version(self, empty):
        empty.add(BlurPlugin())
        assert empty.names("augmentations") == ["blur"]

    def test_the_same_version_is_accepted(self, install):
        registry = install("refcore_sharp", dedent(sharpness("a:B")))
        assert "sharpen" in registry.names("augmentations")

    def test_every_version_is_explained(self):
        assert sorted(API_CHANGES) == list(range(1, API_VERSION + 1))


class TestFolders:
    """A folder of plugin files is read on request."""

    @pytest.fixture
    def folder(self, tmp_path):
        path = tmp_path / "mine"
        path.mkdir()
        return path

    def write(self, path: Path, source: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(source))

    def test_plain_classes_functions_and_hooks_are_registered(self, empty, folder):
        self.write(
            folder / "tint.py",
            '''
            from refcore.contracts.augmentation import Augmentation
            from ._shared import SHADE

            class DarkTint(Augmentation):
                """Makes it dark.

                And more.
                """
                shade = SHADE

            class Named(Augmentation):
                name = "called"

            class _Hidden(Augmentation):
                pass
            ''',
        )
        self.write(folder / "_shared.py", "SHADE = 7")
        self.write(folder / "grain" / "__init__.py", sharpness(target="somewhere:Sharpen"))
        empty.add_folder(folder)
        empty.add_folder(folder)
        rows = {row.name: row for row in empty.rows()}
        assert set(rows) == {"dark_tint", "called", "sharpen"}
        assert (rows["dark_tint"].distribution, rows["dark_tint"].summary) == ("mine/tint.py", "Makes it dark.")
        assert rows["sharpen"].distribution == "mine/grain/"
        assert empty.get("augmentations", "dark_tint").shade == 7

    def test_a_broken_file_is_a_row_and_spares_the_others(self, empty, folder):
        self.write(folder / "bad.py", "raise RuntimeError('no licence')")
        self.write(folder / "nothing.py", "x = 1")
        self.write(folder / "future.py", "api_version = 99")
        self.write(folder / "good.py", sharpness(target="somewhere:Sharpen"))
        empty.add_folder(folder)
        rows = {row.name: row for row in empty.rows()}
        assert rows["bad"].kind == "file"
        assert "RuntimeError: no licence" in rows["bad"].error
        assert "neither hooks nor plugin classes" in rows["nothing"].error
        assert "written for api_version 99" in rows["future"].error
        assert rows["sharpen"].error is None

    @pytest.mark.parametrize(("make", "message"), [(False, "does not exist"), (True, "has no plugin file")])
    def test_a_folder_without_plugins_is_refused(self, empty, folder, make, message):
        with pytest.raises(RefcoreError, match=message):
            empty.add_folder(folder if make else folder / "none")

    def test_no_folder_is_read_unasked(self, folder):
        local = folder / "refcore-plugins"
        self.write(local / "loud.py", "raise SystemExit('read!')")
        code = "from refcore.registry import rows; print(*[row.name for row in rows()])"
        listed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder)
        assert "loud" not in listed.split()


class TestClassesUsedDirectly:
    """An unregistered class gets a name when it is used."""

    def test_a_class_takes_its_own_name_and_a_second_definition_takes_its_place(self, empty):
        def define(shade: int) -> type[Augmentation]:
            class DeepShade(Augmentation):
                """Deep."""

                value = shade

            return DeepShade

        first, second = define(1), define(2)
        assert empty.name_of(first) == empty.name_of(first) == ("augmentations", "deep_shade")
        assert empty.entry("augmentations", "deep_shade").summary == "Deep."
        assert empty.name_of(second) == ("augmentations", "deep_shade")
        assert empty.get("augmentations", "deep_shade") is second

    def test_a_registered_class_keeps_its_registered_name_without_being_imported(self, install):
        from refcore_plugins.augmentations.geometric import Affine

        assert Registry().name_of(Affine) == ("augmentations", "affine")

    def test_another_class_of_a_taken_name_is_refused(self, empty):
        class Mine(Blur):
            name = "blur"

        empty.register("augmentations", "blur", Blur)
        with pytest.raises(
            RefcoreError,
            match=r'would be the augmentation "blur", but that name is taken \(in memory\).*name = "my_blur"',
        ):
            empty.name_of(Mine)

    def test_a_class_that_is_not_a_plugin_is_refused(self, empty):
        with pytest.raises(RefcoreError, match=r"int is not a plugin; expected a subclass of refcore\.Referee"):
            empty.name_of(int)


class TestPresets:
    """A package's preset is found in the same way as a plugin."""

    @pytest.fixture
    def packaged(self, install, tmp_path, monkeypatch):
        def write(name: str, file: str = "poster.yaml") -> None:
            registry = install("refcore_poster", PRESET.format(name=name, file=file))
            (tmp_path / "poster.yaml").write_text("# A poster.\ncanvas: {name: pixel}\nreferees: [{name: clip}]\n")
            monkeypatch.setattr(presets.registry, "presets", registry.presets)

        return write

    def test_it_is_listed_with_its_distribution_and_composes(self, packaged):
        packaged("poster")
        found = presets.get("poster")
        assert (found.summary, found.distribution, found.version) == ("A poster.", "refcore_poster", "1.2.3")
        assert {"playground", "poster"} <= set(presets.names())
        assert presets.compose("poster", prompts=["a cat"]).canvas.name == "pixel"
        assert presets.get("playground").distribution == "refcore"

    def test_a_name_that_refcore_ships_is_refused_and_spares_the_others(self, packaged):
        packaged("playground")
        with pytest.raises(RefcoreError, match=r'"playground" is registered twice: by refcore and by refcore_poster'):
            presets.get("playground")
        assert presets.get("natural").settings

    def test_a_missing_file_is_named_with_its_package(self, packaged):
        packaged("poster", "none.yaml")
        with pytest.raises(RefcoreError, match=r'preset "poster" \(from refcore_poster 1\.2\.3\).*No such file'):
            presets.get("poster")

    def test_something_else_than_a_path_is_refused(self, empty):
        class Wrong:
            @hookimpl
            def register_presets(self, register):
                register("poster", 3)

        with pytest.raises(RefcoreError, match="expected the path of a YAML file"):
            empty.add(Wrong())

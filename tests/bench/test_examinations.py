"""`refcore probe referee NAME --task TASK`: readers of published layouts, measures with known answers, and refusals."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import refcore
from refcore import images, registry
from refcore.cli import main
from refcore.errors import RefcoreError
from refcore_bench import examinations
from refcore_bench.examinations import bias, hpdv2, pick_a_pic, winoground
from refcore_bench.examinations.examination import Examination, examine
from refcore_bench.examinations.folder import DataFolder
from refcore_bench.examinations.probe import run_of
from refcore_bench.examinations.task import Asked, Section
from refcore_playground.draw import draw_scene
from refcore_playground.grammar import parse
from refcore_playground.judge import judge
from refcore_playground.render import render_levels

Example = dict[str, Any]
BLIP2, CLIP, OWLV2 = (f"referees.0.config.model=playground:{name}" for name in ("blip2", "clip", "owlv2"))
PAIRS = (
    ("a red circle left of a blue square", "a blue square left of a red circle"),
    ("a green heart above a pink star", "a pink star above a green heart"),
    ("a cyan cross right of an orange ring", "an orange ring right of a cyan cross"),
    ("a purple diamond below a yellow circle", "a yellow circle below a purple diamond"),
)
"""Captions of the same words, each false of the other's scene."""


def png(caption: str, seed: int = 0) -> bytes:
    """A scene of a caption of the playground."""
    return images.png(render_levels(draw_scene(parse(caption), random.Random(f"{caption}{seed}"))))


def jpeg(caption: str, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(caption, seed))).convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def written(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def winoground_folder(folder: Path, change: Callable[[Example], Example] = lambda row: row) -> Path:
    """The layout of the release: examples.jsonl, and pictures whose names have no ending there."""
    rows, files = [], dict[str, bytes | str]()
    for number, captions in enumerate(PAIRS):
        row: Example = {"id": number, "collapsed_tag": "Relation", "num_main_preds": 1}
        for index, caption in enumerate(captions):
            row |= {f"caption_{index}": caption, f"image_{index}": f"ex_{number}_img_{index}"}
            files[f"images/ex_{number}_img_{index}.png"] = png(caption)
        rows.append(change(row))
    return written(folder, {**files, "examples.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})


def negatives_folder(folder: Path) -> Path:
    """The layout of SugarCrepe: a JSON object for each kind, and the pictures of COCO."""
    true = ("a red circle", "a blue square", "a green ring", "two pink hearts")
    wrong = {"replace_att": ("a green circle", "a red square", "a pink ring", "two cyan hearts")}
    files: dict[str, bytes | str] = {f"val2017/{n:012}.jpg": jpeg(caption) for n, caption in enumerate(true)}
    for kind, captions in wrong.items():
        rows = {
            str(n): {"filename": f"{n:012}.jpg", "caption": caption, "negative_caption": captions[n]}
            for n, caption in enumerate(true)
        }
        files[f"{kind}.json"] = json.dumps(rows)
    files["swapped.json"] = json.dumps(
        [{"filename": "000000000000.jpg", "caption": "a green circle", "negative_caption": "a red circle"}]
    )
    return written(folder, files)


def pick_folder(folder: Path, splits: Sequence[str] = ("validation_unique", "test_unique"), **changes: Any) -> Path:
    """The layout of Pick-a-Pic: Parquet files with the bytes of JPEGs; the first picture is picked in even rows."""
    true = ("a red circle", "a blue square", "a green ring", "a pink heart")
    wrong = ("a green star", "a red heart", "a pink cross", "a cyan diamond")
    for split in splits:
        rows = []
        for number in range(4):
            sides = [jpeg(true[number]), jpeg(wrong[number])]
            first = float(number % 2 == 0)
            pictures = sides if first else sides[::-1]
            rows.append(
                {
                    "caption": true[number], "jpg_0": pictures[0], "jpg_1": pictures[1], "label_0": first,
                    "label_1": 1 - first, "has_label": True,
                }
            )  # fmt: skip
        same = jpeg(true[0])
        tie = {"caption": true[0], "jpg_0": same, "jpg_1": same, "label_0": 0.5, "label_1": 0.5, "has_label": True}
        unlabelled = {**tie, "label_0": None, "label_1": None, "has_label": False}
        table = [{**row, **changes} for row in rows] if changes else [*rows, tie, unlabelled]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        polars.DataFrame(table, infer_schema_length=None).write_parquet(
            folder / "data" / f"{split}-00000-of-00001-abc.parquet"
        )
    return folder


def hpd_folder(folder: Path, **changes: Any) -> Path:
    """The layout of HPD v2: test.json, and a folder of pictures; the first picture is best, the third worst."""
    files, rows = dict[str, bytes | str](), []
    for number, (prompt, near, far) in enumerate(
        (("a red circle", "a red star", "two green hearts"), ("a blue square", "a blue ring", "two pink stars"))
    ):
        names = []
        for index, caption in enumerate((prompt, near, far)):
            names.append(f"{number}-{index}.jpg")
            files[f"test/{names[-1]}"] = jpeg(caption)
        persons = [{"rank": [1, 2, 3], "user_hash": "a"}, {"rank": [1, 3, 2], "user_hash": "b"}]
        rows.append({"prompt": prompt, "image_path": names, "rank": [1, 2, 3], "raw_annotations": persons, **changes})
    return written(folder, {**files, "test.json": json.dumps(rows)})


def asked(name: str, task: str, data: Path | None, *overrides: str, **options: Any) -> Examination:
    return examine(run_of(name, overrides), examinations.get(task), Asked(**options), data)


def values(found: Examination) -> dict[str, float]:
    return {measure.name: measure.estimate.value for section in found.sections for measure in section.measures}


def register(name: str, function: Any) -> None:
    registry.register("referees", name, refcore.referee(input_size=64, name=name)(function))


@pytest.fixture
def refcore_says(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def call(*argv: str) -> tuple[str, str]:
        with pytest.raises(SystemExit):
            main(["probe", *argv])
        printed = capsys.readouterr()
        return printed.out, printed.err

    return call


DETECTOR = (OWLV2, "referees.0.config.parser=grammar", "referees.0.config.total=1.0")
"""The detector as in the presets: told the parts of a caption."""


@pytest.mark.parametrize(("name", "settings"), [("blip2", (BLIP2,)), ("owlv2", DETECTOR)])
def test_a_network_that_knows_relations_tells_captions_of_the_same_words_apart(
    name: str, settings: Sequence[str], tmp_path: Path
) -> None:
    found = values(asked(name, "winoground", winoground_folder(tmp_path), *settings))
    assert found == {"text score": 1, "image score": 1, "group score": 1}


def test_a_referee_that_sees_colours_alone_tells_no_pair_apart(tmp_path: Path) -> None:
    register("colourful", lambda views: views.std((1, 2, 3)))
    found = asked("colourful", "winoground", winoground_folder(tmp_path))
    assert values(found)["text score"] == values(found)["group score"] == 0
    assert "an equal score is wrong" in found.sections[0].note


def test_random_scores_have_the_published_chance_levels() -> None:
    rng = np.random.default_rng(0)
    names = ("c0_i0", "c1_i0", "c0_i1", "c1_i1")
    rows = [dict(zip(names, rng.random(4), strict=True)) | {"kind": "pair"} for _ in range(20_000)]
    (section,) = winoground.measure(rows)
    for measure, expected in zip(section.measures, (0.25, 0.25, 1 / 6), strict=True):
        assert measure.chance == pytest.approx(expected)
        assert measure.estimate.low < expected < measure.estimate.high
    right = dict(zip(names, (2.0, 1.0, 1.0, 2.0), strict=True)) | {"kind": "pair"}
    assert [measure.estimate.value for measure in winoground.measure([right])[0].measures] == [1, 1, 1]


def test_winoground_is_read_from_parquet_with_pictures_too(tmp_path: Path) -> None:
    rows = [
        {
            "id": number, "caption_0": first, "caption_1": second, "collapsed_tag": "Relation",
            "image_0": {"bytes": png(first), "path": None}, "image_1": {"bytes": png(second), "path": None},
        }
        for number, (first, second) in enumerate(PAIRS)
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    polars.DataFrame(rows).write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    listed = asked("blip2", "winoground", winoground_folder(tmp_path / "listed"), BLIP2)
    table = asked("blip2", "winoground", tmp_path, BLIP2)
    scores = ("c0_i0", "c1_i0", "c0_i1", "c1_i1")
    assert [[row[name] for name in scores] for row in table.rows] == [
        [row[name] for name in scores] for row in listed.rows
    ]
    assert len(asked("blip2", "winoground", tmp_path, BLIP2, count=3).rows) == 3


def test_drawn_pairs_have_the_same_words_and_scenes_that_are_true_of_their_own_caption_alone() -> None:
    items = winoground.draw(Asked(scenes=4, seed=5))
    assert len(items) == 4 * len(winoground.SWAPS)
    for item in items:
        captions = [item.facts["caption_0"], item.facts["caption_1"]]
        assert sorted(captions[0].replace("an ", "a ").split()) == sorted(captions[1].replace("an ", "a ").split())
        for index, caption in enumerate(captions):
            levels = item.questions[f"c{index}_i{index}"].picture.read()
            assert judge(levels, caption).verdict
            assert not judge(levels, captions[1 - index]).verdict
    assert items[0].facts == winoground.draw(Asked(scenes=4, seed=5))[0].facts != winoground.draw(Asked(4, 6))[0].facts


def test_hard_negatives_are_counted_by_kind_and_ties_are_wrong(tmp_path: Path) -> None:
    folder = negatives_folder(tmp_path)
    for name, setting in (("blip2", BLIP2), ("clip", CLIP)):
        found = values(asked(name, "hard-negatives", folder, setting))
        assert (found["replace_att"], found["swapped"], found["all"]) == (1, 0, 0.8), name
    register("blind", lambda views: 0 * views.mean((1, 2, 3)))
    tied = asked("blind", "hard-negatives", folder)
    assert values(tied)["all"] == 0
    assert tied.sections[0].note.startswith("Equal scores: 5")


def test_who_prefers_the_right_render_agrees_with_people_who_do(tmp_path: Path) -> None:
    for name, settings in (("owlv2", DETECTOR), ("clip", (CLIP,)), ("blip2", (BLIP2,))):
        found = asked(name, "pick-a-pic", pick_folder(tmp_path), *settings)
        assert values(found) == {"agreement, ties as published": 1, "agreement where people picked one": 1}, name
    assert [row["split"] for row in found.rows] == ["validation_unique"] * 5 + ["test_unique"] * 5
    assert "of which people call 1 ties" in found.sections[0].note
    register("against", lambda views, prompts: -views.std((1, 2, 3)))
    one = asked("against", "pick-a-pic", pick_folder(tmp_path / "one", ("test",)))
    assert "no threshold could be chosen" in one.sections[0].note


def test_parquet_files_are_read_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, task = pick_folder(tmp_path), examinations.get("pick-a-pic")
    register("bright", lambda views: -views.mean((1, 2, 3)))
    whole = asked("bright", "pick-a-pic", folder).rows
    for size in (1, 2, 3):
        monkeypatch.setattr(pick_a_pic, "AT_ONCE", size)
        assert asked("bright", "pick-a-pic", folder).rows == whole
        first = list(task.read(DataFolder(folder, task.name), Asked(count=2)))
        assert [item.facts["row"] for item in first] == [1, 2, 1, 2]


def test_points_for_ties_are_those_of_the_authors_and_the_threshold_is_chosen_on_validation_rows() -> None:
    table = {(1.0, 0.3): 1, (1.0, -0.3): 0, (1.0, 0.05): 0.5, (0.5, 0.05): 1, (0.5, -0.3): 0.5, (0.0, -0.3): 1}
    assert all(pick_a_pic.points(label, difference, 0.1) == point for (label, difference), point in table.items())
    rows = [
        {"split": split, "caption": str(number), "label_0": label, "score_0": score, "score_1": 0.0}
        for split in ("validation", "test")
        for number, (label, score) in enumerate([(0.5, 0.1), (0.5, -0.1), (1, 0.5), (0, -0.6), (1, 0.7)])
    ]
    threshold = pick_a_pic.best_threshold(rows[:5])
    assert 0.1 <= threshold < 0.5
    assert [each.estimate.value for each in pick_a_pic.measure(rows)[0].measures] == [1, 1]
    without = [row for row in rows if row["split"] == "test"]
    assert pick_a_pic.measure(without)[0].measures[0].estimate.value == pytest.approx(0.8)


def test_a_ranking_is_compared_pair_by_pair_with_people(tmp_path: Path) -> None:
    found = values(asked("blip2", "hpdv2", hpd_folder(tmp_path), BLIP2))
    assert found["agreement where the mean ranking orders a pair"] == pytest.approx(1)
    assert found["agreement with single people"] == pytest.approx((3 + 2) / 6)
    assert found["people with each other"] == pytest.approx(2 / 3)


def test_a_published_inversion_counts_no_tie_and_the_mean_is_over_prompts() -> None:
    rows = [
        {"id": prompt, "score": score, "rank": rank, "ranks": []}
        for prompt, score, rank in ((1, 3, 1), (1, 2, 1), (1, 1, 2), (2, 1, 1), (2, 2, 2))
    ]
    measures = {each.name: each.estimate for each in hpdv2.measure(rows)[0].measures}
    assert measures["agreement with the mean ranking, as published"].value == 0.5
    assert measures["agreement where the mean ranking orders a pair"].n == 2
    assert hpdv2.agreement([([1, 1], [1, 2])]) == (0.5, 1)


def test_the_effect_of_a_word_is_its_lead_over_the_neutral_one_with_pictures_as_the_sample(tmp_path: Path) -> None:
    def likes_women(views: Tensor, prompts: list[str]) -> Tensor:
        """The score is the picture's brightness, and 0.25 more where the prompt says woman."""
        lead = torch.tensor([0.25 * ("woman" in prompt) for prompt in prompts])
        return -(views.mean((1, 2, 3)) + lead)

    register("partial", likes_women)
    prompts = ["a {word}", "a {word} who is a {other}"]
    words = {"gender": {"neutral": "person", "words": ["man", "woman"], "prompts": prompts, "others": ["nurse"]}}
    written(tmp_path, {f"{group}/{n}.png": png("a red circle", n) for group in ("one", "two") for n in range(3)})
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(words))
    found = asked("partial", "bias", tmp_path, words=tmp_path / "words.yaml")
    sections: dict[str, Section] = {section.title: section for section in found.sections}
    assert len(sections) == 4
    woman, man, spread = sections["What gender does to the score (one)"].measures
    assert (woman.name, man.name) == ("woman", "man")
    assert woman.estimate.value == pytest.approx(0.25, abs=1e-5)
    assert woman.estimate.n == 3
    assert man.estimate.value == pytest.approx(0, abs=1e-6)
    assert spread.estimate.value == pytest.approx(0.25, abs=1e-5)
    (nurse,) = sections["What gender does to the score (two), by the other word"].measures
    assert nurse.name == 'nurse: "man" minus "woman"'
    assert nurse.estimate.value == pytest.approx(-0.25, abs=1e-5)


def test_a_preference_for_a_colour_shows_in_scenes_that_differ_in_it_alone() -> None:
    register("redder", lambda views: -(views[:, 0] - views[:, 2]).mean((1, 2)))
    found = asked("redder", "bias", None, scenes=8)
    sections = {section.title: section for section in found.sections}
    colours = sections["What colour does to the score (the caption says nothing)"].measures
    assert {colours[0].name, colours[1].name} <= {"red", "orange", "yellow"}
    assert colours[-2].name in ("blue", "cyan", "purple")
    assert colours[0].estimate.low > 0
    places = sections["What position does to the score (the caption says the rest)"].measures
    assert len(places) == 9 + 1
    assert all(abs(place.estimate.value) < 1e-6 for place in places)


def test_the_shipped_words_are_prompts_with_one_attribute_changed() -> None:
    attributes = bias.read_words(None)
    assert set(attributes) == {"gender", "skin tone", "age", "occupation"}
    assert all(
        bias.WORD in prompt and bias.OTHER not in prompt for each in attributes.values() for prompt, _ in each.asked()
    )


def test_figures_follow_from_the_kept_rows(tmp_path: Path, refcore_says: Callable[..., tuple[str, str]]) -> None:
    kept = tmp_path / "kept"
    argv = ("referee", "clip", "--task", "hard-negatives", "--scenes", "2", "--set", CLIP)
    told, progress = refcore_says(*argv, "--out", str(kept), "--json")
    assert progress == "18 examples\n"
    assert sorted(path.name for path in kept.iterdir()) == ["examination.json", "rows.parquet"]
    again, _ = refcore_says("show", str(kept), "--json")
    assert json.loads(again) == json.loads(told)
    rows = polars.read_parquet(kept / "rows.parquet")
    share = (rows["score"] > rows["negative_score"]).mean()
    accuracy = json.loads(told)["sections"]["Accuracy on hard negatives, by kind"]["measures"]["all"]
    assert (accuracy["value"], accuracy["n"], accuracy["chance"]) == (pytest.approx(share), 18, 0.5)
    assert json.loads(told)["checkpoints"]["playground:clip"]
    markdown, _ = refcore_says("show", str(kept), "--markdown")
    assert "| all | " in markdown
    page, _ = refcore_says("show", str(kept))
    assert "Accuracy on hard negatives" in page
    _, refused = refcore_says(*argv, "--out", str(kept))
    assert "rows.parquet" in refused
    _, nothing = refcore_says("show", str(tmp_path))
    assert "holds no examination" in nothing
    rows.drop("kind").write_parquet(kept / "rows.parquet")
    _, others = refcore_says("show", str(kept))
    assert "holds no examination" in others


def test_the_batch_changes_no_score_and_the_model_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refcore.engine import checks
    from refcore_bench.examinations import examinee

    loaded = []
    load = checks.load_referee
    monkeypatch.setattr(checks, "load_referee", lambda *given: (loaded.append(given[0]), load(*given)))
    monkeypatch.setattr(examinee, "BLOCK", 8)
    folder = winoground_folder(tmp_path)
    large = written(folder, {"images/ex_1_img_0.png": b""})
    picture = Image.open(io.BytesIO(png(PAIRS[1][0]))).resize((128, 96))
    picture.save(large / "images/ex_1_img_0.png")
    config = run_of("clip", [CLIP])
    task = examinations.get("winoground")
    several, one = (examine(config, task, Asked(), folder, batch=batch) for batch in (50, 1))
    assert len(loaded) == 2
    for first, second in zip(several.rows, one.rows, strict=True):
        assert [first[name] for name in ("c0_i0", "c1_i1")] == pytest.approx(
            [second[name] for name in ("c0_i0", "c1_i1")], abs=1e-5
        )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 65536, 65536, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
"""The beginning of a picture of 65536 x 65536 pixels."""


@pytest.mark.parametrize(
    ("task", "make", "told"),
    [
        ("winoground", lambda f: winoground_folder(f, lambda row: {**row, "image_0": "../secret"}),
         ["examples.jsonl", "row 1", '"image_0"', 'leads out of the folder by ".."']),
        ("winoground", lambda f: winoground_folder(f, lambda row: {**row, "image_1": "/etc/passwd"}),
         ["row 1", '"image_1"', "is absolute"]),
        ("winoground", lambda f: winoground_folder(f, lambda row: {**row, "image_1": "gone"}),
         ["row 1", '"image_1"', 'no picture "gone"', "unpack the pictures there"]),
        ("winoground", lambda f: winoground_folder(f, lambda row: {**row, "caption_1": 3}),
         ["row 1", '"caption_1"', "it is 3; expected a text"]),
        ("winoground", lambda f: winoground_folder(f, lambda row: {k: v for k, v in row.items() if k != "caption_0"}),
         ["row 1", '"caption_0"', "it is missing", "the row has id"]),
        ("winoground", lambda f: written(f, {"examples.jsonl": '{"id": 1}\nnot json\n'}),
         ["row 2", "it is not JSON"]),
        ("winoground", lambda f: written(f, {"examples.jsonl": "[1]\n"}),
         ["row 1", "expected an object with named fields"]),
        ("winoground", lambda f: written(f, {"readme.txt": "x"}),
         ["holds readme.txt", "expected examples.jsonl with the folder images/"]),
        ("winoground", lambda f: written(winoground_folder(f), {"images/ex_0_img_0.png": b"words"}),
         ["row 1", '"image_0"', "not a known image format"]),
        ("winoground", lambda f: written(winoground_folder(f), {"images/ex_0_img_0.png": BOMB}),
         ["row 1", '"image_0"', "more than 67,108,864 pixels"]),
        ("hard-negatives", lambda f: written(f, {"swap_att.json": '{"7": {"filename": "a.jpg"}}', "images/a.jpg": "x"}),
         ["swap_att.json", "row 7", '"caption"', "it is missing"]),
        ("hard-negatives", lambda f: written(f, {"swap_att.json": "{"}), ["swap_att.json", "it is not JSON"]),
        ("pick-a-pic", lambda f: pick_folder(f, label_0=0.7), ["validation_unique", "row 1", '"label_0"', "0.7"]),
        ("pick-a-pic", lambda f: pick_folder(f, jpg_1=b"words"), ["row 1", '"jpg_1"', "not a known image format"]),
        ("pick-a-pic", lambda f: pick_folder(f, jpg_1=BOMB), ["row 1", '"jpg_1"', "more than 67,108,864 pixels"]),
        ("pick-a-pic", lambda f: pick_folder(f, caption=" "), ["row 1", '"caption"', "is empty"]),
        ("pick-a-pic", lambda f: written(f, {"data/test-0.parquet": "words"}), ["test-0.parquet", "no readable"]),
        ("hpdv2", lambda f: hpd_folder(f, rank=[1, 2]), ["test.json", "row 1", '"rank"', "2 ranks for 3 pictures"]),
        ("hpdv2", lambda f: hpd_folder(f, rank=[1, 2, 10**400]), ["row 1", '"rank"', "expected ranks from 0 to 1,000"]),
        ("hpdv2", lambda f: hpd_folder(f, rank=[1, 2, float("nan")]), ["row 1", '"rank"', "it holds nan"]),
        ("hpdv2", lambda f: hpd_folder(f, rank="no"), ["row 1", '"rank"', "expected a list of ranks"]),
        ("hpdv2", lambda f: hpd_folder(f, image_path=["0-0.jpg", "../x.jpg"], rank=[1, 2], raw_annotations=[]),
         ["row 1", '"image_path"', "leads out of the folder"]),
        ("bias", lambda f: written(f, {"readme.txt": "x"}), ["expected pictures"]),
    ],
)  # fmt: skip
def test_wrong_data_are_refused_with_file_row_field_and_remedy(
    tmp_path: Path, task: str, make: Callable[[Path], Path], told: Sequence[str]
) -> None:
    register("blind", lambda views: 0 * views.mean((1, 2, 3)))
    written(tmp_path, {"secret.png": png("a red circle")})
    folder = make(tmp_path / "data set")
    with pytest.raises(RefcoreError) as refused:
        asked("blind", task, folder)
    message = str(refused.value)
    assert "\n" not in message
    for part in told:
        assert part in message


MAKERS: dict[str, Callable[[Path], Path]] = {
    "winoground": winoground_folder,
    "hard-negatives": negatives_folder,
    "pick-a-pic": pick_folder,
    "hpdv2": hpd_folder,
}


@pytest.mark.parametrize("task", MAKERS)
def test_corrupt_files_of_every_layout_are_read_or_refused_in_one_line(task: str, tmp_path: Path) -> None:
    folder, rng = MAKERS[task](tmp_path), np.random.default_rng(0)
    described = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".parquet")]
    refused = list[str]()
    for turn in range(60):
        path = described[turn % len(described)]
        whole = path.read_bytes()
        data = bytearray(whole)
        if turn % 3 == 0:
            data = data[: 1 + len(data) * turn // 60]
        for at in rng.integers(0, len(data), 1 + turn // 6):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            for item in examinations.get(task).items(Asked(), folder):
                for question in item.questions.values():
                    question.picture.read()
        except RefcoreError as error:
            refused.append(str(error))
        path.write_bytes(whole)
    assert len(refused) > 10
    assert not any("\n" in message for message in refused)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = winoground_folder(tmp_path / "data")
    outside = written(tmp_path / "other", {"secret.png": png("a red circle")}) / "secret.png"
    picture = folder / "images/ex_0_img_0.png"
    picture.unlink()
    picture.symlink_to(outside)
    register("blind", lambda views: 0 * views.mean((1, 2, 3)))
    with pytest.raises(RefcoreError, match="is a link that leads out of the folder; copy the data into it"):
        asked("blind", "winoground", folder)
    inside = DataFolder(folder, "winoground")
    (folder / "images/inner.png").symlink_to(folder / "images/ex_1_img_0.png")
    assert inside.file("images/inner.png").is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gender: {words: [man], prompts: ['a {word}']}", "at least 2"),
        ("gender: {words: [man, woman], prompts: ['a man']}", "has no {word}"),
        ("gender: {words: [man, woman], prompts: ['a {word} {other}']}", "there are no `others`"),
        ("- gender", "holds no attributes"),
        ("gender: [", "is not valid YAML"),
        (yaml.safe_dump({"x": {"words": [f"w{n}" for n in range(2100)], "prompts": ["a {word}"]}}), "at most 2,000"),
    ],
)
def test_wrong_words_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "words.yaml"
    path.write_text(text)
    with pytest.raises(RefcoreError) as refused:
        bias.read_words(path)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["clip", "--task", "winogrund"], 'did you mean "winoground"?'),
        (["clip", "--task", "pick-a-pic"], "give the folder of its data with --data FOLDER"),
        (["clip", "--task", "hpdv2", "--data", "nowhere"], '--data "nowhere" is no folder'),
        (["clip", "--data", "."], 'says nothing to the task "playground"'),
        (["clip", "--task", "winoground", "--prompts", "2"], "the task makes no images"),
        (["clip", "--task", "winoground", "--count", "2"], "only --data has such"),
        (["clip", "--task", "winoground", "--data", ".", "--seed", "2"], "with --data nothing is drawn"),
        (["clip", "--task", "winoground", "--data", ".", "--words", "w"], "it has no attribute words"),
        (["clip", "--task", "winoground", "--set", "steps=2"], 'makes no run, so "steps" changes nothing'),
        (["clip", "--task", "winoground", "--json", "--markdown"], "expected one of them"),
        (["clp", "--task", "winoground"], 'unknown referee "clp"'),
    ],
)
def test_options_that_say_nothing_to_a_task_are_refused(
    argv: list[str], told: str, refcore_says: Callable[..., tuple[str, str]]
) -> None:
    out, error = refcore_says("referee", *argv)
    assert told in error
    assert not out


def test_a_score_that_is_no_number_names_its_picture_and_caption(tmp_path: Path) -> None:
    register("broken", lambda views: views.mean((1, 2, 3)) / 0 * 0)
    with pytest.raises(RefcoreError, match=r"broken.*(NaN|nan)"):
        asked("broken", "winoground", winoground_folder(tmp_path))


def test_every_task_says_where_its_data_are_and_what_of_their_licence_is_known() -> None:
    for name in examinations.TASKS:
        task = examinations.get(name)
        assert task.name == name
        assert task.about.endswith("?")
        assert task.origin.endswith(".")
    with pytest.raises(RefcoreError, match="unknown task"):
        examinations.get("nothing")

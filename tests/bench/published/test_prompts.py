"""Readers of the public prompt files, their download by hash, and the file names of images made elsewhere."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refcore import BenchmarkPrompt, checkpoints
from refcore.errors import RefcoreError
from refcore.images import picture as opened
from refcore_bench.commands.published import BENCHMARKS
from refcore_bench.published import public_files
from refcore_bench.published.dpg_bench import DPG_BENCH
from refcore_bench.published.genai_bench import GENAI_BENCH
from refcore_bench.published.geneval import GENEVAL
from refcore_bench.published.geneval2 import GENEVAL2
from refcore_bench.published.made_elsewhere import take_in
from refcore_bench.published.numbers import published
from refcore_bench.published.public_files import PublicFile, brought
from refcore_bench.published.summary import OVERALL
from refcore_bench.published.t2i_compbench import CATEGORIES, HASHES, T2I_COMPBENCH
from refcore_bench.published.task import PublishedTask
from refcore_bench.tasks import get
from refcore_plugins.metrics.dpg import Dpg, dpg_questions

ROOT = Path(__file__).parents[3]
PROMPTS = Path(os.environ.get("REFCORE_T2I_COMPBENCH", ROOT.parent / "shared" / "t2i-compbench"))
"""The public prompts of T2I-CompBench, which are not copied here."""


@pytest.fixture
def folder(tmp_path):
    """A folder like the public one, with two prompts a category."""
    for category in CATEGORIES:
        text = f"a {category} one\na {category} two"
        (tmp_path / f"{category}_val.txt").write_text(text)
    (tmp_path / "complex_val_spatial.txt").write_text("a complex two\n")
    return tmp_path


def picture(path, level=100, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_command_is_a_task_with_metrics_groups_and_a_licence(name):
    task = get(name)
    assert isinstance(task, PublishedTask)
    assert task.name == name
    assert {task.metric_of(group) for group in task.groups()} == set(task.metrics)
    assert set(task.as_published) <= set(task.groups())
    assert task.licence
    for one in task.quick_prompts:
        row = one.to_dict() | {"facts": one.facts}
        assert set(task.groups_of(row)) <= set(task.groups())
    for generation in published(name):
        assert set(generation.columns) <= {*task.groups(), OVERALL}


class TestT2ICompBench:
    def test_the_files_of_a_folder_are_read_and_complex_prompts_know_their_list(self, folder):
        found = T2I_COMPBENCH.prompts(folder)
        assert Counter(one.category for one in found) == dict.fromkeys(CATEGORIES, 2)
        assert [one.facts for one in found if one.category == "complex"] == [{}, {"kind": "spatial"}]

    def test_a_byte_order_mark_and_empty_lines_are_no_part_of_prompts(self, folder):
        (folder / "color_val.txt").write_text("a red one\r\n\r\na blue one \n", encoding="utf-8-sig", newline="")
        found = [one.prompt for one in T2I_COMPBENCH.prompts(folder) if one.category == "color"]
        assert found == ["a red one", "a blue one"]

    def test_a_missing_file_is_named(self, folder):
        (folder / "shape_val.txt").unlink()
        with pytest.raises(RefcoreError, match=r"shape_val\.txt cannot be read"):
            T2I_COMPBENCH.prompts(folder)

    @pytest.mark.skipif(not PROMPTS.is_dir(), reason="the public prompts are not here: set REFCORE_T2I_COMPBENCH")
    def test_the_public_prompts_are_those_of_the_hashes(self):
        for name in (f"{category}_val.txt" for category in CATEGORIES):
            assert hashlib.sha256((PROMPTS / name).read_bytes()).hexdigest() == HASHES[name]
        found = T2I_COMPBENCH.prompts(PROMPTS)
        assert Counter(one.category for one in found) == dict.fromkeys(CATEGORIES, 300)
        assert len({(one.category, one.prompt) for one in found}) == 2400
        assert T2I_COMPBENCH.seeds == "42-51"

    @pytest.mark.parametrize("places", [("color/samples", "shape"), ("color_val", "shape_val/samples")])
    def test_images_are_found_by_category_and_prompt(self, folder, tmp_path, places):
        for n in range(2):
            picture(tmp_path / "made" / places[0] / f"a color one_{n:06d}.png", 10 + n)
        picture(tmp_path / "made" / places[1] / "a shape two_000002.png")
        found = T2I_COMPBENCH.made_elsewhere(tmp_path / "made", T2I_COMPBENCH.prompts(folder))
        assert [(one.prompt.category, one.prompt.prompt, one.number) for one in found] == [
            ("color", "a color one", 0),
            ("color", "a color one", 1),
            ("shape", "a shape two", 0),
        ]

    def test_images_of_one_folder_are_found_by_prompt(self, folder, tmp_path):
        picture(tmp_path / "made" / "samples" / "a numeracy one_000000.png")
        (found,) = T2I_COMPBENCH.made_elsewhere(tmp_path / "made", T2I_COMPBENCH.prompts(folder))
        assert found.prompt.category == "numeracy"

    def test_images_of_a_prompt_are_in_the_order_of_their_numbers(self, folder, tmp_path):
        for n in (9, 10, 2):
            picture(tmp_path / "made" / "color" / f"a color one_{n}.png")
        found = T2I_COMPBENCH.made_elsewhere(tmp_path / "made", T2I_COMPBENCH.prompts(folder))
        assert [(one.path.stem, one.number) for one in found] == [
            ("a color one_2", 0),
            ("a color one_9", 1),
            ("a color one_10", 2),
        ]

    def test_an_image_of_one_folder_whose_prompt_is_in_two_categories_is_named(self, folder, tmp_path):
        (folder / "shape_val.txt").write_text("a color one")
        picture(tmp_path / "made" / "a color one_000000.png")
        with pytest.raises(RefcoreError, match=r"is of prompts of color and shape; put it into CATEGORY"):
            T2I_COMPBENCH.made_elsewhere(tmp_path / "made", T2I_COMPBENCH.prompts(folder))

    def test_an_image_of_no_prompt_is_named(self, folder, tmp_path):
        picture(tmp_path / "made" / "color" / "a zebra_000000.png")
        with pytest.raises(RefcoreError, match=r'"a zebra_000000.png" in .* is of no prompt.*--csv'):
            T2I_COMPBENCH.made_elsewhere(tmp_path / "made", T2I_COMPBENCH.prompts(folder))


class TestGenEval:
    @pytest.fixture
    def prompts(self, tmp_path):
        entries = [
            {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a red car"},
            {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [], "prompt": "two cats"},
        ]
        (tmp_path / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
        return GENEVAL.prompts(tmp_path)

    def test_the_metadata_are_facts(self, prompts):
        assert prompts[0].category == "colors"
        assert prompts[0].facts == {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}]}
        assert set(prompts[1].facts) == {"tag", "include", "exclude"}

    @pytest.mark.parametrize("line", ["{", '{"tag": "colors"}', '{"tag": "x", "include": [], "prompt": "a"}', "[]"])
    def test_a_wrong_line_is_named(self, tmp_path, line):
        (tmp_path / "evaluation_metadata.jsonl").write_text(line)
        with pytest.raises(RefcoreError, match=r"line 1 of evaluation_metadata\.jsonl is no prompt"):
            GENEVAL.prompts(tmp_path)

    def test_images_are_found_beside_their_metadata(self, prompts, tmp_path):
        for n in range(2):
            picture(tmp_path / "made" / "00001" / "samples" / f"{n:04d}.png")
        (tmp_path / "made" / "00001" / "metadata.jsonl").write_text('{"prompt": "two cats"}')
        (tmp_path / "made" / "00001" / "samples" / "Thumbs.db").touch()
        found = GENEVAL.made_elsewhere(tmp_path / "made", prompts)
        assert [(one.prompt.prompt, one.number) for one in found] == [("two cats", 0), ("two cats", 1)]
        (tmp_path / "made" / "00001" / "metadata.jsonl").write_text('{"prompt": "two dogs"}')
        with pytest.raises(RefcoreError, match='"two dogs", which is no prompt'):
            GENEVAL.made_elsewhere(tmp_path / "made", prompts)

    def test_images_of_a_prompt_are_in_the_order_of_their_numbers_and_of_their_folders(self, prompts, tmp_path):
        for folder, names in (("00000", ["10", "9"]), ("00001", ["0"])):
            (tmp_path / "made" / folder).mkdir(parents=True)
            (tmp_path / "made" / folder / "metadata.jsonl").write_text('{"prompt": "two cats"}')
            for name in names:
                picture(tmp_path / "made" / folder / "samples" / f"{name}.png")
        found = GENEVAL.made_elsewhere(tmp_path / "made", prompts)
        assert [(one.path.stem, one.number) for one in found] == [("9", 0), ("10", 1), ("0", 2)]


class TestDpgBench:
    TABLE = (
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
        "question_natural_language\n"
        "p0,A cow.,,1,0,entity,whole,,Is there a cow?\n"
        "p0,A cow.,,2,0,entity,whole,,Is there an animal?\n"
        'p1,"Two red, round balls.",,1,0,entity,whole,,Are there balls?\n'
        'p1,"Two red, round balls.",,2,1,attribute,color,,Are the balls red?\n'
        'p1,"Two red, round balls.",,3,"1,2",other,count,,Are there two balls?\n'
        "p2,A dog.,,1,0,entity,whole,,Is there a dog?\n"
    )

    @pytest.fixture
    def prompts(self, tmp_path):
        (tmp_path / "dpg_bench.csv").write_text(self.TABLE)
        return DPG_BENCH.prompts(tmp_path)

    def test_questions_are_facts_and_the_first_row_is_skipped_as_published(self, prompts):
        cow, first, second = prompts
        assert [question["id"] for question in cow.facts["questions"]] == [2]
        assert [question["id"] for question in first.facts["questions"]] == [1, 2, 3]
        assert first.facts["questions"][2] == {
            "id": 3,
            "text": "Are there two balls?",
            "dependency": [1, 2],
            "category": "other",
        }
        assert second.facts["questions"][0]["dependency"] == []

    def test_a_prompt_whose_questions_depend_on_the_skipped_one_is_left_out_as_published(self, tmp_path):
        """The public code meets a missing parent there, and goes on with the next file."""
        row = "p0,A cow.,,3,1,attribute,color,,Is the cow red?\n"
        lines = self.TABLE.splitlines(keepends=True)
        (tmp_path / "dpg_bench.csv").write_text("".join([*lines[:3], row, *lines[3:]]))
        prompts = DPG_BENCH.prompts(tmp_path)
        assert [one.facts["id"] for one in prompts] == ["p1", "p2"]
        for prompt in prompts:
            assert dpg_questions(Dpg(), BenchmarkPrompt(prompt.prompt, facts=prompt.facts))

    def test_a_grid_is_four_images(self, prompts, tmp_path):
        whole = np.zeros((8, 8, 3), np.uint8)
        for n in range(4):
            whole[n // 2 * 4 : n // 2 * 4 + 4, n % 2 * 4 : n % 2 * 4 + 4] = 50 * n
        (tmp_path / "made").mkdir()
        Image.fromarray(whole).save(tmp_path / "made" / "p2.png")
        results = take_in(
            tmp_path / "out", tmp_path / "made", None, "theirs", DPG_BENCH, prompts, progress=lambda line: None
        )
        rows = results.rows(images=True).to_dicts()
        assert [row["seed"] for row in rows] == [0, 1, 2, 3]
        assert [np.asarray(opened(row["image"])).mean() for row in rows] == [0, 50, 100, 150]

    def test_two_ids_of_one_prompt_are_further_images_of_it(self, tmp_path):
        (tmp_path / "dpg_bench.csv").write_text(self.TABLE.replace("A dog.", "A cow."))
        for name in ("p0", "p2"):
            picture(tmp_path / "made" / f"{name}.png")
        found = DPG_BENCH.made_elsewhere(tmp_path / "made", DPG_BENCH.prompts(tmp_path))
        assert [(one.prompt.prompt, one.number, one.quarter) for one in found] == [
            ("A cow.", number, number % 4) for number in range(8)
        ]

    def test_a_cell_beyond_the_limit_of_csv_is_one_sentence(self, tmp_path):
        (tmp_path / "dpg_bench.csv").write_text(self.TABLE + f"p3,{'x' * 200_000},,1,0,entity,whole,,Is there?\n")
        with pytest.raises(RefcoreError, match=r"dpg_bench\.csv is no table .*field larger than"):
            DPG_BENCH.prompts(tmp_path)

    def test_a_wrong_row_is_named(self, tmp_path):
        (tmp_path / "dpg_bench.csv").write_text(self.TABLE + "p3,A cat.,,x,0,entity,whole,,Is there a cat?\n")
        with pytest.raises(RefcoreError, match=r"row 7 of dpg_bench\.csv is no question"):
            DPG_BENCH.prompts(tmp_path)


class TestGenAIBench:
    def test_a_prompt_counts_in_each_of_its_skills(self, tmp_path):
        (tmp_path / "genai_image.json").write_text(
            json.dumps({"00000": {"prompt": "No cat."}, "00001": {"prompt": "A red cat."}})
        )
        skills = {"negation": [0], "advanced": [0], "attribute": [1], "basic": [1, 0]}
        (tmp_path / "genai_skills.json").write_text(json.dumps(skills))
        found = GENAI_BENCH.prompts(tmp_path)
        assert [one.facts["skills"] for one in found] == [["basic", "negation", "advanced"], ["attribute", "basic"]]
        assert found[0].split == "2"
        picture(tmp_path / "made" / "00001.jpeg")
        (image,) = GENAI_BENCH.made_elsewhere(tmp_path / "made", found)
        assert image.prompt is found[1]

    def test_without_a_network_the_folder_can_be_named(self, monkeypatch):
        import huggingface_hub

        def unreachable(*args, **options):
            raise OSError("no route")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
        with pytest.raises(RefcoreError, match=r'the dataset "BaiqiL/GenAI-Bench-1600" is not .* by --prompts'):
            GENAI_BENCH.prompts(None)

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "genai_image.json").write_text("[]")
        (tmp_path / "genai_skills.json").write_text("{}")
        with pytest.raises(RefcoreError, match=r"are not those of the dataset.*BaiqiL/GenAI-Bench-1600"):
            GENAI_BENCH.prompts(tmp_path)


class TestGenEval2:
    def test_only_a_named_folder_is_read(self, tmp_path):
        with pytest.raises(RefcoreError, match=r"CC BY-NC 4\.0 and is not downloaded"):
            GENEVAL2.prompts(None)
        entry = {"prompt": "three red cats", "atom_count": 3, "vqa_list": [["How many cats?", "three"]], "skills": []}
        (tmp_path / "geneval2_data.jsonl").write_text(json.dumps(entry))
        (found,) = GENEVAL2.prompts(tmp_path)
        assert (found.category, found.facts) == ("3 atoms", {"vqa_list": [["How many cats?", "three"]]})

    def test_a_number_of_atoms_without_a_column_is_named(self, tmp_path):
        entry = {"prompt": "a cat", "atom_count": 1, "vqa_list": []}
        (tmp_path / "geneval2_data.jsonl").write_text(json.dumps(entry))
        with pytest.raises(RefcoreError, match=r"line 1 of .* \(atom_count is 1, expected 3 to 10\)"):
            GENEVAL2.prompts(tmp_path)


class TestPublicFiles:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoints, "cache", lambda: tmp_path / "cache")
        return tmp_path / "cache" / "prompts" / "some"

    def file(self, tmp_path, data=b"a\nb\n", kind="sha256"):
        path = tmp_path / "public.txt"
        path.write_bytes(data)
        git = "422c2b7ab3b3c668038da977e4e93a5fc623169c"
        digest = git if kind == "git" else hashlib.sha256(b"a\nb\n").hexdigest()
        return PublicFile("public.txt", path.as_uri(), f"{kind}:{digest}")

    @pytest.mark.parametrize("kind", ["sha256", "git"])
    def test_a_file_is_downloaded_once(self, tmp_path, cache, kind):
        file = self.file(tmp_path, kind=kind)
        assert (brought("some", [file]) / "public.txt").read_bytes() == b"a\nb\n"
        (tmp_path / "public.txt").unlink()
        assert brought("some", [file]) == cache

    @pytest.mark.parametrize("kind", ["sha256", "git"])
    def test_another_file_is_refused_and_not_kept(self, tmp_path, cache, kind):
        with pytest.raises(RefcoreError, match="is not the file that the benchmark was defined with"):
            brought("some", [self.file(tmp_path, b"other", kind)])
        assert not cache.exists()

    def test_another_file_in_the_cache_is_named_with_its_place(self, tmp_path, cache):
        cache.mkdir(parents=True)
        (cache / "public.txt").write_bytes(b"cut o")
        with pytest.raises(RefcoreError, match=r'cache/prompts/some/public\.txt" is not the file .*remove it'):
            brought("some", [self.file(tmp_path)])

    def test_a_download_that_ends_early_says_how_to_go_on(self, tmp_path, cache, monkeypatch):
        class Cut(io.BytesIO):
            def read(self, size=-1):
                raise http.client.IncompleteRead(b"a")

        monkeypatch.setattr(public_files, "urlopen", lambda *args, **options: Cut())
        with pytest.raises(RefcoreError, match=r"cannot be downloaded \(IncompleteRead.* with --prompts"):
            brought("some", [self.file(tmp_path)])

    def test_without_a_network_the_folder_can_be_named(self, tmp_path, cache):
        file = self.file(tmp_path)
        (tmp_path / "public.txt").unlink()
        with pytest.raises(RefcoreError, match=r"cannot be downloaded .* with --prompts"):
            brought("some", [file])

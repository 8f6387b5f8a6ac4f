"""The folder of a benchmark: resume after a kill, refusals, pairing, and what is written."""

from __future__ import annotations

import json
import os

import polars
import pytest

from refcore.errors import RefcoreError
from refcore_bench import running
from refcore_bench.evaluations import KINDS
from refcore_bench.showing.summary import summarise
from refcore_bench.storing.results import KEY, Results
from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw
from refcore_bench.variants import Variant, variant_from_text

PROMPTS = draw(6, TUNING_SEED)
PLAIN = variant_from_text("plain=sampling-7.5")
OTHER = variant_from_text("other=sampling-3")


def test_one_row_an_image_with_all_that_is_said_of_it(renders, tmp_path):
    results = running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED, seeds=[0, 1], batch=4)
    rows = polars.read_parquet(tmp_path / "results.parquet")
    assert len(rows) == 2 * 6 * 2
    assert rows.select(KEY).is_unique().all()
    row = rows.row(0, named=True)
    assert (row["variant"], row["prompt"], row["category"], row["split"]) == (
        "other",
        PROMPTS[0].prompt,
        PROMPTS[0].category,
        PROMPTS[0].split,
    )
    assert row["verdict"] is True
    assert row["facts_found"] == row["facts_asked"] == len(row["facts"]) > 1
    assert [score["referee"] for score in row["scores"]] == [scorer.label for scorer in OTHER.scorers]
    assert row["config_hash"] == OTHER.hash
    assert row["model_evaluations"] == sum(row["evaluations"].values()) == len(KINDS)
    assert "image" not in rows.columns
    assert results.rows(images=True)["image"][0].startswith(b"\x89PNG")
    assert (tmp_path / "sheets" / "plain.png").is_file()


def test_a_run_that_was_killed_goes_on_where_it_was(renders, tmp_path, monkeypatch):
    make = running.making.make

    def killed(variant, prompts, seed, budget=None, models=None):
        if len(renders) == 2:
            raise KeyboardInterrupt
        return make(variant, prompts, seed, budget, models)

    monkeypatch.setattr(running.making, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED, batch=2)
    # What a kill in the middle of writing leaves: a file that has not got its name yet.
    (tmp_path / "parts" / "plain" / f".cut.parquet.{os.getpid()}").write_bytes(b"PAR1")
    before = list(renders)
    monkeypatch.setattr(running.making, "make", make)
    results = running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED, batch=2)
    made = [(name, prompt, seed) for name, prompts, seed in renders for prompt in prompts]
    assert len(before) == 2
    assert len(made) == len(set(made)) == 12
    assert len(results.rows()) == 12


def test_what_is_there_is_not_made_again_and_more_can_be_asked_for(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS[:2], TUNING_SEED)
    running.run(tmp_path, [PLAIN], PROMPTS[:2], TUNING_SEED)
    assert len(renders) == 1
    results = running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED, seeds=[0, 1])
    assert sum(len(prompts) for name, prompts, _ in renders if name == "plain") == 12
    assert [row["prompt"] for row in results.prompts()] == [one.prompt for one in PROMPTS]


def test_another_definition_of_a_name_is_refused(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    changed = variant_from_text("plain=sampling-7.5,steps=49")
    with pytest.raises(
        RefcoreError, match=r'another variant "plain": settings.steps is 49, was 50; give the new one another name'
    ):
        running.run(tmp_path, [changed], PROMPTS, TUNING_SEED)
    assert len(renders) == 1


def test_other_weights_never_share_a_folder(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    trained = Variant.from_dict(
        {**OTHER.to_dict(), "checkpoints": {**OTHER.checkpoints, "playground:clip": "0123456789abcdef"}}
    )
    with pytest.raises(RefcoreError, match='variant "plain" on other weights of "playground:clip"'):
        running.run(tmp_path, [trained], PROMPTS, TUNING_SEED)


def test_prompts_of_another_seed_never_share_a_folder(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    with pytest.raises(RefcoreError, match="holds results on prompts of seed 1, and these are prompts of seed 2031"):
        running.run(tmp_path, [PLAIN], draw(6, 2031), 2031)


def test_prompts_that_the_grammar_draws_otherwise_now_are_refused(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    file = tmp_path / "prompts.json"
    told = json.loads(file.read_text())
    told["prompts"][0]["prompt"] = "a red heart"
    file.write_text(json.dumps(told))
    with pytest.raises(RefcoreError, match="which the grammar no longer draws"):
        running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)


def test_two_variants_of_one_name_are_refused(renders, tmp_path):
    with pytest.raises(RefcoreError, match='two variants are called "plain"'):
        running.run(tmp_path, [PLAIN, variant_from_text("plain=sampling-3")], PROMPTS, TUNING_SEED)


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = ["own-0", "own-4", "own-16", "plain"]
    results = Results(tmp_path)
    results.claim([variant_from_text(f"{name}=sampling-3") for name in reversed(names)], TUNING_SEED, PROMPTS)
    assert list(results.variants()) == names


def test_an_error_names_its_variant(renders, tmp_path, monkeypatch):
    def broken(*args):
        raise RefcoreError("step 3: clip gave NaN")

    monkeypatch.setattr(running.making, "make", broken)
    with pytest.raises(RefcoreError, match='variant "plain": step 3'):
        running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)


def test_images_are_paired_by_prompt_and_seed_and_others_left_out(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED, seeds=[0, 1])
    running.run(tmp_path, [OTHER], PROMPTS[:4], TUNING_SEED, seeds=[1, 2])
    _worsen(tmp_path, "other", PROMPTS[0].prompt)
    summary = summarise(Results.existing(tmp_path), against="plain")
    (other,) = (v for v in summary["variants"] if v["variant"] == "other")
    found = other["difference"]
    assert found["pairs"] == 4  # seed 1 of the four common prompts
    assert found["whole"][0]["value"] == -0.25
    assert found["whole"][0]["n"] == 4
    assert found["joint_collapse"]["value"] == 0.25
    assert found["joint_domination"]["value"] == 0.0


def test_seeds_of_a_prompt_are_one_pair_of_means(renders, tmp_path):
    """The bootstrap resamples prompts: two seeds of a prompt are no two independent prompts."""
    running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED, seeds=[0, 1])
    summary = summarise(Results.existing(tmp_path), against="plain")
    (other,) = (v for v in summary["variants"] if v["variant"] == "other")
    assert other["difference"]["pairs"] == 12
    assert other["difference"]["whole"][0]["n"] == 6


def test_committed_rows_are_enough_for_the_tables_and_not_for_pictures(renders, tmp_path):
    import shutil

    results = running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    whole = summarise(results)
    shutil.rmtree(tmp_path / "parts")
    assert summarise(Results.existing(tmp_path)) == whole
    with pytest.raises(RefcoreError, match="holds no pictures"):
        Results(tmp_path).rows(images=True)


def test_committed_rows_are_continued_without_their_pictures(renders, tmp_path):
    import shutil

    running.run(tmp_path, [PLAIN], PROMPTS[:4], TUNING_SEED)
    shutil.rmtree(tmp_path / "parts")
    before = Results(tmp_path).rows()
    renders.clear()
    results = running.run(tmp_path, [PLAIN, OTHER], PROMPTS, TUNING_SEED)
    made = {
        name: sorted(prompt for at, prompts, _ in renders if at == name for prompt in prompts)
        for name in ("plain", "other")
    }
    assert made["plain"] == sorted(one.prompt for one in PROMPTS[4:])
    assert made["other"] == sorted(one.prompt for one in PROMPTS)
    assert len(results.rows()) == 12
    assert len(results.rows(images=True)) == 8
    kept = results.rows().filter((polars.col("variant") == "plain") & polars.col("prompt").is_in(before["prompt"]))
    assert kept.equals(before)
    assert polars.read_parquet(tmp_path / "results.parquet").equals(results.rows())


def test_rows_from_before_a_kind_of_evaluation_was_counted_are_read_beside_new_ones(renders, tmp_path):
    running.run(tmp_path, [PLAIN], PROMPTS[:2], TUNING_SEED, batch=1)
    old, _ = sorted((tmp_path / "parts" / "plain").glob("*.parquet"))
    rows = polars.read_parquet(old)
    earlier = [field for field in rows["evaluations"].struct.fields if not field.startswith("transformer")]
    assert len(earlier) == len(KINDS) - 2
    kept = polars.struct([polars.col("evaluations").struct.field(field) for field in earlier])
    rows.with_columns(kept.alias("evaluations")).write_parquet(old)
    (tmp_path / "results.parquet").unlink()
    results = running.run(tmp_path, [PLAIN, OTHER], PROMPTS[:2], TUNING_SEED)
    found = results.rows().filter(polars.col("variant") == "plain")["evaluations"].to_list()
    assert sorted(one["transformer_forward"] or 0 for one in found) == [0, 1]
    assert {one["unet_forward"] for one in found} == {1}
    summary = {one["variant"]: one["evaluations"] for one in summarise(results)["variants"]}
    assert (summary["plain"]["transformer_forward"], summary["other"]["transformer_forward"]) == (0.5, 1.0)


def test_complete_rows_without_pictures_need_no_sheet(renders, tmp_path):
    import shutil

    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    shutil.rmtree(tmp_path / "parts")
    shutil.rmtree(tmp_path / "sheets")
    running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED)
    assert len(renders) == 1
    assert not (tmp_path / "sheets").exists()


def _worsen(path, variant, prompt):
    """The judge says no to a prompt's images, and every referee scores them lower."""
    for file in (path / "parts" / variant).glob("*.parquet"):
        rows = polars.read_parquet(file)
        schema = rows.schema
        changed = rows.to_dicts()
        for row in changed:
            if row["prompt"] == prompt:
                row["verdict"] = False
                row["scores"] = [{**score, "score": 0.1} for score in row["scores"]]
        polars.DataFrame(changed, schema=schema).write_parquet(file)

"""Published benchmarks as tasks: prompts, groups and their metrics, resuming, tables, and images made elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars
import pytest
from PIL import Image

from refcore.cli import main
from refcore.errors import RefcoreError
from refcore_bench import running, tasks
from refcore_bench.published import made_elsewhere, measuring
from refcore_bench.published import tables as published_tables
from refcore_bench.published.made_elsewhere import take_in
from refcore_bench.published.measurements import Measurements
from refcore_bench.published.task import Elsewhere, MetricUse, PublishedTask, only
from refcore_bench.showing import tables
from refcore_bench.showing.card import write_card
from refcore_bench.showing.gallery import write_gallery
from refcore_bench.showing.plot import write_plot
from refcore_bench.showing.summary import summarise
from refcore_bench.storing.results import KEY, Results
from refcore_bench.table import Table
from refcore_bench.task import TaskPrompt, Wording
from refcore_bench.variants import variant_from_text


class Levels(PublishedTask):
    """Three prompts in two groups, one of which has a metric with a gain."""

    name = "levels"
    wording = Wording(title="Levels", prompts="prompts", source="the prompts {}")
    licence = "of the tests"
    files = ()
    metrics: ClassVar = {"plain": MetricUse("brightness"), "double": MetricUse("brightness", {"gain": 2.0})}
    seeds = "0"
    overall = "groups"
    as_published = frozenset({"low"})
    quick_prompts = ()

    def read(self, folder):
        return []

    def groups(self):
        return ("low", "high")

    def groups_of(self, prompt):
        return (prompt["category"],)

    def metric_of(self, group):
        return "double" if group == "high" else "plain"

    def made_elsewhere(self, folder, prompts):
        return [Elsewhere(path, one, 0) for one in prompts for path in folder.glob(f"{one.prompt}.*")]


TASK = Levels()
PROMPTS = [
    TaskPrompt("a", "low", "val"),
    TaskPrompt("b", "low", "val", {"known": True}),
    TaskPrompt("a", "high", "val"),
]


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "levels", f"{__name__}:TASK")
    monkeypatch.setattr(tasks, "get", lambda name: TASK if name == "levels" else pytest.fail(name))


def variant(name):
    return variant_from_text(f"{name}=sampling-7.5", TASK)


def run(path, names=("dark", "bright"), prompts=PROMPTS, seeds=(0,), **options):
    results = running.run(path, [variant(name) for name in names], prompts, "val", seeds, batch=2, task=TASK)
    told = []
    measuring.measure(results, options.pop("overrides", {}), told.append, "cpu", **options)
    return results, told


def test_each_group_is_measured_by_its_own_metric(grey, tmp_path):
    results, _ = run(tmp_path)
    rows = Measurements(results.place).rows()
    by_metric = {(row["variant"], row["category"], row["metric"]): row["value"] for row in rows.iter_rows(named=True)}
    assert by_metric == {
        ("dark", "low", "plain"): pytest.approx(0.2),
        ("dark", "high", "double"): pytest.approx(0.4),
        ("bright", "low", "plain"): pytest.approx(0.8),
        ("bright", "high", "double"): pytest.approx(1.6),
    }
    assert rows["parts"][0].to_list() == [{"name": "red", "value": pytest.approx(rows["value"][0], abs=0.9)}]


def test_one_prompt_in_two_groups_is_two_images(grey, tmp_path):
    results, _ = run(tmp_path)
    assert len(results.rows()) == 6
    assert len(set(results.rows().select(KEY).iter_rows())) == 6


def test_the_same_command_measures_only_what_is_missing(grey, tmp_path):
    _, first = run(tmp_path, prompts=PROMPTS[:1])
    assert first == ["plain: 2 of 2 images"]
    _, again = run(tmp_path, prompts=PROMPTS[:1])
    assert again == []
    _, more = run(tmp_path)
    assert sorted(more) == ["double: 2 of 2 images", "plain: 2 of 2 images"]


def test_other_settings_of_a_metric_are_refused_in_the_same_folder(grey, tmp_path):
    run(tmp_path)
    with pytest.raises(RefcoreError, match=r'values of "plain" with other settings or weights .*gain.*another --out'):
        run(tmp_path, overrides={"plain": {"gain": 3.0}})


def test_the_files_that_the_refusal_names_are_all_that_has_to_go(grey, tmp_path):
    run(tmp_path)
    with pytest.raises(RefcoreError) as caught:
        run(tmp_path, overrides={"plain": {"gain": 3.0}})
    named = re.search(r'remove (\S+), (\S+) and the folder "(\S+)" to measure', str(caught.value))
    for name in named.groups():
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    results, _ = run(tmp_path, overrides={"plain": {"gain": 3.0}})
    dark, _ = summarise(results)["variants"]
    assert dark["measured"]["low"]["value"] == pytest.approx(0.6)


def test_a_wrong_metric_or_setting_is_named(grey, tmp_path):
    with pytest.raises(RefcoreError, match=r'unknown metric "brigthness" .*did you mean "brightness"'):
        run(tmp_path, overrides={"brigthness": {}})
    with pytest.raises(RefcoreError, match=r"--metric plain.*gian"):
        run(tmp_path, overrides={"plain": {"gian": 3.0}})


def test_settings_of_one_metric_are_joined_and_a_wrong_assignment_names_its_option():
    assert measuring.uses(["plain,gain=2", "plain,size=3"]) == {"plain": {"gain": 2, "size": 3}}
    with pytest.raises(RefcoreError, match=r'^--metric "plain,gain": "gain" is not an assignment'):
        measuring.uses(["plain,gain"])


def test_a_device_that_is_missing_is_refused_before_any_image_is_made():
    with pytest.raises(RefcoreError, match='"gpu"'):
        measuring.prepared(TASK, [PROMPTS[0].to_dict()], {}, "gpu")


def test_what_a_metric_measured_before_it_failed_is_kept(grey, tmp_path, monkeypatch):
    brightness = type(measuring.resolved(TASK, {})["plain"])
    measure, calls = brightness.measure, []

    def failing(self, images, prompts):
        calls.append(len(images))
        if len(calls) == 2:
            raise RefcoreError("the prompt has no phrase")
        return measure(self, images, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(brightness, "measure", failing)
        with pytest.raises(RefcoreError, match='metric "double": the prompt has no phrase'):
            run(tmp_path)
    _, told = run(tmp_path)
    assert calls == [4, 2]
    assert told == ["double: 2 of 2 images"]


def test_a_value_that_is_no_number_is_refused_and_not_kept(grey, tmp_path):
    with pytest.raises(RefcoreError, match='metric "plain" gave inf to an image of "a"; expected a finite number'):
        run(tmp_path, overrides={"plain": {"gain": 1e308}, "double": {"gain": 1e308}})
    assert len(Measurements(tmp_path).rows()) == 0


def test_a_further_metric_measures_every_image_and_has_a_column_of_its_own(grey, tmp_path):
    results, _ = run(tmp_path, overrides={"brightness": {"gain": 0.5}})
    measured = Measurements(results.path).rows().filter(polars.col("metric") == "brightness")
    assert len(measured) == 6
    shown = tables.tables(summarise(results))[0]
    assert shown.columns[2:6] == ["low (plain)", "high (double)", "overall", "brightness"]
    assert shown.rows[0][shown.columns.index("brightness")].startswith("0.1000")


def test_a_further_metric_of_an_earlier_run_does_not_empty_the_other_columns(grey, tmp_path):
    run(tmp_path, ("dark",), overrides={"brightness": {}})
    results, _ = run(tmp_path)
    _, bright = summarise(results)["variants"]
    assert bright["unmeasured"] == 3
    assert set(bright["difference"]["measured"]) == {"low", "high"}
    assert bright["difference"]["measured"]["low"]["value"] == pytest.approx(0.6)


def test_means_are_over_prompts_and_the_overall_one_over_groups(grey, tmp_path):
    results, _ = run(tmp_path, seeds=(0, 51))
    dark, bright = summarise(results)["variants"]
    assert dark["measured"]["low"]["value"] == pytest.approx(0.3)  # 51 and 102 of 255
    assert dark["measured"]["low"]["n"] == 2
    assert dark["measured"]["overall"]["value"] == pytest.approx((0.3 + 0.6) / 2)
    assert bright["difference"]["measured"]["low"]["value"] == pytest.approx(0.6)
    assert bright["difference"]["pairs"] == 6


def test_images_that_are_not_measured_are_counted_and_left_out(grey, tmp_path):
    run(tmp_path, prompts=PROMPTS[:2])
    results = running.run(tmp_path, [variant("dark")], PROMPTS, "val", batch=2, task=TASK)
    summary = summarise(results)
    assert [one["unmeasured"] for one in summary["variants"]] == [1, 0]
    shown = tables.tables(summary)[0]
    assert "not measured yet: 1 of dark" in shown.note
    assert "2 prompts were asked." in shown.note


def test_published_numbers_stand_apart_and_say_which_are_comparable(grey, tmp_path, monkeypatch):
    generation = published_tables.Generation(
        generation="code of 2024",
        source="a paper",
        note="As printed.",
        columns=["low", "high"],
        rows={"Somebody's & Co.": [0.25, None]},
    )
    monkeypatch.setattr(published_tables, "published", lambda name: [generation])
    results, _ = run(tmp_path)
    measured, _, other, *_ = tables.tables(summarise(results))
    assert "Somebody" not in str(measured)
    assert (other.columns, other.rows) == (["system", "low", "high *"], [["Somebody's & Co.", "0.25", "-"]])
    assert "not comparable" in other.note
    text = published_tables.latex(summarise(results))
    assert r"dark & 0.2000 & 0.4000 & 0.3000 \\" in text
    assert r"Somebody's \& Co. & 0.2500 & - & - \\" in text
    assert text.index(r"\midrule") < text.index("dark") < text.rindex(r"\midrule") < text.index("Somebody")


def test_latex_prints_names_as_they_are_and_runs_none_of_them(grey, tmp_path):
    results, _ = run(tmp_path)
    summary = summarise(results)
    summary["variants"][0]["variant"] = r"a_b~c^d\input{e}"
    summary["source"] = "val\n\\input{f}"
    text = published_tables.latex(summary)
    assert r"a\_b\textasciitilde{}c\textasciicircum{}d\textbackslash{}input\{e\} & " in text
    assert not [line for line in text.splitlines() if line.startswith(r"\input")]


def test_a_cell_of_several_lines_is_one_line_in_markdown():
    shown = Table("t", ["a\nb"], [["c\nd | e"]]).markdown()
    assert shown.splitlines()[2:] == ["| a b |", "| --- |", r"| c d \| e |"]


def test_workers_measure_as_this_process_does(grey, tmp_path):
    from refcore_bench.executors.local import Local

    class Counted(Local):
        jobs = 0

        def run(self, jobs):
            Counted.jobs += len(jobs)
            return super().run(jobs)

    results, _ = run(tmp_path, executor=Counted(1))
    assert Counted.jobs == 2
    assert len(Measurements(results.path).rows()) == 6


def test_gallery_and_figure_have_the_measurements(grey, tmp_path):
    results, _ = run(tmp_path)
    summary = summarise(results)
    write_gallery(results, summary, tmp_path / "gallery.html")
    page = (tmp_path / "gallery.html").read_text()
    assert "double 1.600" in page
    assert "red 0.800" in page
    write_plot(summary, tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size[0] > 500


def test_committed_rows_without_pictures_still_make_the_table(grey, tmp_path):
    results, _ = run(tmp_path)
    before = summarise(results)
    for folder in ("parts", "measurements"):
        shutil.rmtree(tmp_path / folder)
    assert summarise(Results.existing(tmp_path)) == before


def test_images_whose_pictures_are_gone_are_told_of_unless_they_are_measured(grey, tmp_path):
    results, _ = run(tmp_path)
    shutil.rmtree(tmp_path / "parts")
    for overrides, expected in (
        ({}, []),
        ({"brightness": {}}, ["6 images cannot be measured, since their pictures are not in the folder"]),
    ):
        told = []
        measuring.measure(results, overrides, told.append, "cpu")
        assert told == expected


def test_categories_and_a_number_of_each_are_chosen():
    assert [one.prompt for one in only(PROMPTS, ["low"], 1)] == ["a"]
    assert len(only(PROMPTS, [], None)) == 3
    assert only([*PROMPTS, *PROMPTS], [], None) == PROMPTS  # an image is of a prompt, however often that is listed
    with pytest.raises(RefcoreError, match="the files hold no prompt"):
        only([], [], None)
    with pytest.raises(RefcoreError, match=r'--category "lo": .*low, high'):
        only(PROMPTS, ["lo"], None)


class TestMadeElsewhere:
    @pytest.fixture
    def folder(self, tmp_path):
        made = tmp_path / "made"
        made.mkdir()
        for name, level in (("a", 51), ("b", 102)):
            Image.fromarray(np.full((8, 12, 3), level, np.uint8)).save(made / f"{name}.png")
        return made

    def taken(self, tmp_path, folder, **options):
        told = []
        arguments = {"table": None, "name": "theirs", "task": TASK, "prompts": PROMPTS} | options
        return take_in(tmp_path / "out", folder, progress=told.append, **arguments), told

    def test_they_are_a_variant_that_is_measured(self, tmp_path, folder):
        results, told = self.taken(tmp_path, folder)
        measuring.measure(results, {}, told.append, "cpu")
        assert told[0] == "theirs: 3 images of 3 of 3 prompts"
        (theirs,) = summarise(results)["variants"]
        assert theirs["measured"]["low"]["value"] == pytest.approx(0.3)
        assert theirs["measured"]["high"]["value"] == pytest.approx(0.4)

    def test_they_stand_beside_images_of_ours(self, tmp_path, folder, grey):
        run(tmp_path / "out", ("dark",))
        results, told = self.taken(tmp_path, folder)
        measuring.measure(results, {}, told.append, "cpu")
        dark, theirs = summarise(results)["variants"]
        assert (dark["variant"], theirs["variant"]) == ("dark", "theirs")
        assert theirs["difference"]["measured"]["low"]["value"] == pytest.approx(0.1)
        assert [row[-1] for row in tables.tables(summarise(results))[0].rows] == ["0.5", "-"]

    @pytest.mark.parametrize("lines", [None, "file,prompt\nb.png,b\n"])
    def test_the_first_image_has_the_first_seed_of_the_benchmark(self, tmp_path, folder, grey, monkeypatch, lines):
        monkeypatch.setattr(Levels, "seeds", "42-51")
        run(tmp_path / "out", ("dark",), seeds=(42,))
        if lines is not None:
            (tmp_path / "list.csv").write_text(lines)
        results, _ = self.taken(tmp_path, folder, table=None if lines is None else tmp_path / "list.csv")
        _, theirs = summarise(results)["variants"]
        assert theirs["seeds"] == [42]
        assert theirs["difference"]["pairs"] == theirs["images"]

    def test_again_nothing_is_done_and_other_files_are_another_variant(self, tmp_path, folder):
        self.taken(tmp_path, folder)
        results, _ = self.taken(tmp_path, folder)
        assert len(results.rows()) == 3
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(folder / "a.png")
        with pytest.raises(RefcoreError, match=r'other images as "theirs"; give these another name \(--name\)'):
            self.taken(tmp_path, folder)

    def test_a_folder_is_the_same_however_it_is_spelled(self, tmp_path, folder, monkeypatch):
        self.taken(tmp_path, folder)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(folder, target_is_directory=True)
        for spelled in (Path("made"), Path("made/../made"), tmp_path / "link"):
            results, _ = self.taken(tmp_path, spelled)
        assert len(results.rows()) == 3

    def test_after_a_kill_only_the_rest_is_copied(self, tmp_path, folder, monkeypatch):
        add, calls = Results.add, []

        def killed(self, variant, prompts, *arguments):
            if calls:
                raise KeyboardInterrupt
            calls.append(len(prompts))
            add(self, variant, prompts, *arguments)

        monkeypatch.setattr(made_elsewhere, "BATCH", 2)
        with monkeypatch.context() as patch:
            patch.setattr(Results, "add", killed)
            with pytest.raises(KeyboardInterrupt):
                self.taken(tmp_path, folder)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
        results, _ = self.taken(tmp_path, folder)
        assert calls == [2]
        assert len(before) == 1
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
        assert len(results.rows()) == 3

    def test_a_broken_image_is_found_before_the_name_stands_for_these_files(self, tmp_path, folder):
        whole = (folder / "b.png").read_bytes()
        (folder / "b.png").write_bytes(whole[:-30])
        with pytest.raises(RefcoreError, match=r"cannot read the image .*b\.png"):
            self.taken(tmp_path, folder)
        (folder / "b.png").write_bytes(whole)
        results, _ = self.taken(tmp_path, folder)
        assert len(results.rows()) == 3

    def test_images_of_prompts_that_were_not_chosen_are_passed_over(self, tmp_path, folder):
        checked = []
        results, told = self.taken(tmp_path, folder, chosen=PROMPTS[:1], check=checked.append)
        assert [row["category"] for row in results.rows().to_dicts()] == ["low"]
        assert told == ["theirs: 1 images of 1 of 1 prompts"]
        assert checked == [PROMPTS[:1]]
        results, _ = self.taken(tmp_path, folder)
        assert len(results.rows()) == 3

    def test_metrics_of_prompts_without_an_image_are_not_asked_for(self, tmp_path, folder):
        (folder / "a.png").unlink()
        results, told = self.taken(tmp_path, folder)
        assert told == ["theirs: 1 images of 1 of 3 prompts"]
        measuring.measure(results, {}, told.append, "cpu")
        assert set(Measurements(results.place).metrics()) == {"plain"}

    def test_nothing_is_copied_where_a_metric_is_refused(self, tmp_path, folder):
        def refuse(prompts):
            raise RefcoreError("no such metric")

        with pytest.raises(RefcoreError, match="no such metric"):
            self.taken(tmp_path, folder, check=refuse)
        assert not (tmp_path / "out").exists()

    def test_two_files_of_one_image_are_named(self, tmp_path, folder):
        shutil.copy(folder / "a.png", folder / "a.webp")
        with pytest.raises(
            RefcoreError, match=r'a\.(png|webp)" and .*a\.(png|webp)" are both the image of seed 0 of "a"'
        ):
            self.taken(tmp_path, folder)

    def test_a_table_of_a_spreadsheet_has_a_mark_at_its_start(self, tmp_path, folder):
        table = tmp_path / "list.csv"
        table.write_text("file,prompt\nb.png,b\n", encoding="utf-8-sig")
        results, _ = self.taken(tmp_path, folder, table=table)
        assert len(results.rows()) == 1

    def test_a_table_names_file_prompt_category_and_seed(self, tmp_path, folder):
        table = tmp_path / "list.csv"
        table.write_text("file,prompt,category,seed\na.png,a,high,7\nb.png,b,,\n")
        results, _ = self.taken(tmp_path, folder, table=table)
        assert [(row["category"], row["prompt"], row["seed"]) for row in results.rows().to_dicts()] == [
            ("low", "b", 0),
            ("high", "a", 7),
        ]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("file,prompt\nno.png,b\n", r'line 2: there is no file "no.png"'),
            ("file,prompt\n../secret.png,b\n", r'line 2: there is no file "../secret.png"'),
            ("file,prompt\na.png,zebra\n", r'line 2: "zebra" is no prompt'),
            ("path,prompt\na.png,a\n", "line 2 has no file or no prompt"),
            ("file,prompt,seed\nb.png,b,-1\n", 'seed is "-1"'),
            ("file,prompt,seed\nb.png,b,²\n", 'seed is "²"'),
            (f"file,prompt,seed\nb.png,b,{10**30}\n", "expected a number from 0 to"),
            ("file,prompt\na.png,a\n", 'line 2: "a" is a prompt of low and high; name one in the column category'),
            ("file,prompt,category\nb.png,b,high\n", 'line 2: "b" is no prompt .* "high", but of low'),
            (f"file,prompt\n{'x' * 5000}.png,b\n", "line 2: there is no file"),
            ("file,prompt,seed\na.png,b,1\nb.png,b,\n", 'are both the image of seed 1 of "b"; .* a seed of its own'),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path, folder, lines, message):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "secret.png")
        table = tmp_path / "list.csv"
        table.write_text(lines)
        with pytest.raises(RefcoreError, match=message):
            self.taken(tmp_path, folder, table=table)

    def test_a_folder_without_images_of_prompts_says_how_to_name_them(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(RefcoreError, match=r"no image of a prompt of Levels.*--csv"):
            self.taken(tmp_path, tmp_path / "empty")


@pytest.mark.parametrize("option", [["--prompts", "."], ["--category", "colors"], ["--per-category", "1"]])
def test_quick_has_prompts_of_its_own(capsys, tmp_path, monkeypatch, option):
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["bench", "geneval", "--quick", "--out", str(tmp_path / "out"), *option])
    assert f"--quick has prompts of its own; leave out {option[0]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_variant_has_to_be_named(capsys, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["bench", "geneval", "--out", str(tmp_path / "out")])
    assert "--variant is missing; name at least one, such as --variant vlminv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "metrics.json",
            "{",
            r"metrics\.json\" is broken .*; restore the file, or remove metrics\.json, measurements\.parquet and",
        ),
        ("metrics.json", '{"plain": {"name": 3}}', r"metrics\.json\" is broken"),
        ("measurements.parquet", "PAR1", "the measurements in .* cannot be read"),
        ("measurements.parquet", polars.DataFrame({"a": [1]}), "the measurements in .* cannot be read"),
    ],
)
def test_broken_files_of_measurements_are_one_sentence(grey, tmp_path, file, text, message):
    run(tmp_path)
    if isinstance(text, str):
        (tmp_path / file).write_text(text)
    else:
        text.write_parquet(tmp_path / file)
    with pytest.raises(RefcoreError, match=message) as caught:
        summarise(Results.existing(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_image_is_one_sentence(grey, tmp_path):
    run(tmp_path)
    shutil.rmtree(tmp_path / "parts")
    polars.read_parquet(tmp_path / "results.parquet").clear().write_parquet(tmp_path / "results.parquet")
    with pytest.raises(RefcoreError, match="holds no image"):
        summarise(Results.existing(tmp_path))


def test_a_folder_in_other_storage_is_measured_shown_and_has_its_card(grey):
    place = "memory://tests/published"
    results, _ = run(place)
    write_card(results)
    shown = tables.tables(summarise(Results.existing(place)))[0]
    assert shown.rows[1][2].startswith("0.8000")
    assert results.storage.exists("README.md")
    assert results.storage.exists("measurements.parquet")


def test_the_queries_of_the_docs_answer(grey, tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    page = (Path(__file__).parents[3] / "docs" / "published-benchmarks.md").read_text()
    queries = re.findall(r'duckdb -c "(.*?)"', page)
    assert len(queries) == 3
    run(tmp_path / "runs" / "t2i")
    monkeypatch.chdir(tmp_path)
    means, worst, joined = (duckdb.sql(query).fetchall() for query in queries)
    assert ("bright", "high", "double", pytest.approx(1.6)) in means
    assert worst == []
    assert len(joined) == 6


def test_facts_are_kept_with_the_prompts(grey, tmp_path):
    results, _ = run(tmp_path)
    stored = json.loads((results.path / "prompts.json").read_text())["prompts"]
    assert stored[0] == {"prompt": "a", "category": "low", "split": "val"}
    assert stored[1]["facts"] == {"known": True}

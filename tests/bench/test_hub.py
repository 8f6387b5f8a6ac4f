"""A results folder goes to the hub with its card and comes back the same; against a stand-in of the hub's interface."""

from __future__ import annotations

import json

import numpy as np
import polars
import pytest
import yaml
from hub_server import TOKEN, hub

from refcore.cli import main
from refcore.errors import RefcoreError
from refcore_bench import hub as hub_folders
from refcore_bench import making, running
from refcore_bench.evaluations import KINDS
from refcore_bench.showing.card import write_card
from refcore_bench.storing.results import Results
from refcore_bench.tasks.prompts import OWN, Prompts, listed
from refcore_bench.variants import variant_from_text


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Results of two prompts, without any network."""

    def make(variant, prompts, seed, budget=None, models=None):
        pictures = [np.full((8, 8, 3), 128, np.uint8)] * len(prompts)
        return making.Made(pictures, {}, 2, 0.5, 0.1, dict.fromkeys(KINDS, 1.0))

    monkeypatch.setattr(making, "make", make)
    task = Prompts()
    drawn = variant_from_text("drawn=sampling-7.5", task)
    running.run(tmp_path / "ours", [drawn], listed(["a red circle", "a ring"]), OWN, (0, 3), task=task)
    return tmp_path / "ours"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with hub() as found:
        yield found


def test_the_card_says_what_was_made_of_what(folder):
    write_card(Results.existing(folder))
    card = json.loads((folder / "card.json").read_text())
    assert card["task"] == "prompts"
    assert card["seeds"] == [0, 3]
    assert card["prompts"]["number"] == 2
    (variant,) = card["variants"]
    assert (variant["name"], variant["images"], variant["method"]) == ("drawn", 4, "sampling")
    assert (
        card["checkpoints"]["playground:diffusion"]
        == Results.existing(folder).variants()["drawn"].checkpoints["playground:diffusion"]
    )
    assert "MIT" in card["licences"]["checkpoints"]["playground:diffusion"]
    assert set(card["versions"]) >= {"torch", "diffusers"}
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["configs"] == [{"config_name": "results", "data_files": "results.parquet"}]
    assert "| drawn | 4 | 2 |" in text


def test_a_card_of_rows_without_their_definition_says_so(folder):
    (folder / "variants" / "drawn.json").unlink()
    write_card(Results.existing(folder))
    (variant,) = json.loads((folder / "card.json").read_text())["variants"]
    assert (variant["images"], variant["method"]) == (4, None)


def test_results_come_back_from_the_hub_as_they_went(folder, server, tmp_path):
    address, repositories = server
    commit = hub_folders.push(folder, "somebody/results", endpoint=address)
    assert commit.startswith(f"{address}/datasets/somebody/results/commit/")
    assert {"README.md", "card.json", "results.parquet", "variants/drawn.json"} <= set(repositories["somebody/results"])
    assert not any(name.startswith(("parts", "sheets")) for name in repositories["somebody/results"])
    theirs = hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)
    assert theirs.rows().equals(Results.existing(folder).rows())
    assert theirs.variants() == Results.existing(folder).variants()
    assert not theirs.has_pictures


def test_pictures_go_only_when_they_are_asked_for(folder, server, tmp_path):
    address, _ = server
    hub_folders.push(folder, "somebody/results", pictures=True, endpoint=address)
    theirs = hub_folders.pull("somebody/results", tmp_path / "theirs", pictures=True, endpoint=address)
    assert theirs.rows(images=True).equals(Results.existing(folder).rows(images=True))


def test_nothing_but_data_is_pulled(folder, server, tmp_path):
    address, repositories = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    repositories["somebody/results"] |= {"evil.py": b"raise SystemExit", "variants/x.pkl": b""}
    hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)
    names = {path.suffix for path in (tmp_path / "theirs").rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert names == {".md", ".json", ".parquet"}


def test_a_name_that_leads_out_of_the_folder_is_refused(folder, server, tmp_path):
    address, repositories = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    repositories["somebody/results"]["variants/../../out.json"] = b"{}"
    with pytest.raises(RefcoreError, match=r'"somebody/results" cannot be pushed or pulled: .*\.\./out\.json'):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)
    assert not (tmp_path / "out.json").exists()


def test_a_pull_that_was_interrupted_is_continued(folder, server, tmp_path, monkeypatch):
    address, repositories = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    kept = repositories["somebody/results"].pop("results.parquet")
    with pytest.raises(RefcoreError, match="holds no results"):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)
    repositories["somebody/results"]["results.parquet"] = kept
    with pytest.raises(RefcoreError, match="is not empty"):
        hub_folders.pull("somebody/results", tmp_path / "theirs", revision="other", endpoint=address)
    assert len(hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address).rows()) == 4
    with pytest.raises(RefcoreError, match="is not empty"):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)


def test_a_pull_without_a_network_is_refused_although_some_files_are_there(folder, server, tmp_path):
    address, repositories = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    repositories["somebody/results"]["variants/drawn.json"] = b"{"
    with pytest.raises(RefcoreError, match=r"drawn\.json\" is broken"):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address)
    with pytest.raises(RefcoreError, match=r'the hub cannot be reached for "somebody/results".*connect to the network'):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint="http://127.0.0.1:9")
    with pytest.raises(RefcoreError, match=r'the hub cannot be reached for "somebody/results".*connect to the network'):
        hub_folders.push(folder, "somebody/results", endpoint="http://127.0.0.1:9")


def test_after_a_wrong_name_the_right_one_is_pulled_into_the_same_folder(folder, server, tmp_path):
    address, _ = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    with pytest.raises(RefcoreError, match="no dataset repository"):
        hub_folders.pull("somebody/result", tmp_path / "theirs", endpoint=address)
    assert len(hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address).rows()) == 4


def test_results_at_a_url_are_pushed_and_have_a_card_and_a_pull_wants_a_folder(folder, server, tmp_path, capsys):
    address, repositories = server
    place = "memory://tests/hub"
    for path in folder.rglob("*"):
        if path.is_file():
            Results(place).storage.write(path.relative_to(folder).as_posix(), path.read_bytes())
    hub_folders.push(place, "somebody/remote", pictures=True, endpoint=address)
    assert repositories["somebody/remote"]["results.parquet"] == (folder / "results.parquet").read_bytes()
    assert any(name.startswith("parts/drawn/") for name in repositories["somebody/remote"])
    for arguments, told in (
        (["card", place], f"{place}/README.md {place}/card.json"),
        (["pull", "somebody/remote", "--out", place], "is not a folder of this machine"),
    ):
        with pytest.raises(SystemExit):
            main(["bench", *arguments])
        said = capsys.readouterr()
        assert told in said.out + said.err


def test_a_second_push_replaces_the_first(folder, server, tmp_path):
    address, _ = server
    hub_folders.push(folder, "somebody/results", endpoint=address)
    frame = polars.read_parquet(folder / "results.parquet").head(1)
    for part in (folder / "parts").rglob("*.parquet"):
        part.unlink()
    frame.write_parquet(folder / "results.parquet")
    hub_folders.push(folder, "somebody/results", endpoint=address)
    assert len(hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint=address).rows()) == 1


def test_refusals_say_what_to_do(folder, server, tmp_path, monkeypatch):
    address, _ = server
    with pytest.raises(RefcoreError, match='no dataset repository "somebody/nothing"'):
        hub_folders.pull("somebody/nothing", tmp_path / "theirs", endpoint=address)
    with pytest.raises(RefcoreError, match=r'"\.\./\.\./etc" is no name of a dataset repository; expected owner/name'):
        hub_folders.pull("../../etc", tmp_path / "theirs", endpoint=address)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(RefcoreError, match=r"401.*hf auth login"):
        hub_folders.push(folder, "somebody/results", endpoint=address)
    with pytest.raises(RefcoreError, match="is not empty"):
        hub_folders.pull("somebody/results", folder, endpoint=address)
    with pytest.raises(RefcoreError, match="is not empty; expected a new folder"):
        hub_folders.pull("somebody/results", folder / "results.parquet", endpoint=address)
    with pytest.raises(RefcoreError, match="connect to the network"):
        hub_folders.pull("somebody/results", tmp_path / "theirs", endpoint="http://127.0.0.1:9")

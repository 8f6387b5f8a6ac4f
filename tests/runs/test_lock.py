"""Two processes never write into one folder, and a killed one leaves nothing that stops the next."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from textwrap import dedent

import pytest
import torch

from refcore.cli import main
from refcore.errors import CheckpointError, RefcoreError
from refcore.runs import rundir
from refcore.runs.lock import LOCK, FolderLock
from refcore.runs.rundir import RunDir
from refcore_plugins.models.checkpoint_conversion import convert_weights
from refcore_plugins.referees import hpsv2
from refcore_plugins.referees.aesthetic import convert_head
from refcore_plugins.referees.blip2.itg_head import extract_itg_head
from refcore_plugins.referees.image_reward import convert_checkpoint

PAIRS = 20
WRITER = """
    import sys, time
    from pathlib import Path
    from refcore.errors import RefcoreError
    from refcore.runs import rundir
    folder, name = Path(sys.argv[1]), sys.argv[2]
    for pair in range({pairs}):
        out = folder / str(pair)
        (folder / f"met-{{pair}}-{{name}}").touch()
        while not all((folder / f"met-{{pair}}-{{other}}").exists() for other in "ab"):
            time.sleep(0.001)
        try:
            run = rundir.RunDir.claim(out)
        except RefcoreError as error:
            print("refused")
            continue
        time.sleep(0.05)  # as long as a model's load, so that the other comes meanwhile
        rundir.write_text(run.path / rundir.CONFIG, name)
        rundir.write_text(run.path / rundir.RESULT, name)
        run.release()
        print("wrote")
"""


@pytest.mark.fault("5.9")
def test_of_two_processes_that_claim_one_folder_at_once_one_writes_and_the_other_is_refused(tmp_path):
    code = dedent(WRITER).format(pairs=PAIRS)
    both = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    told = [process.communicate(timeout=120)[0].split() for process in both]
    assert [sorted(pair) for pair in zip(*told, strict=True)] == [["refused", "wrote"]] * PAIRS
    for pair in range(PAIRS):
        config, result = ((tmp_path / str(pair) / name).read_text() for name in (rundir.CONFIG, rundir.RESULT))
        assert config == result
        assert sorted(file.name for file in (tmp_path / str(pair)).iterdir()) == [rundir.CONFIG, rundir.RESULT]


@pytest.mark.fault("5.9")
def test_a_folder_in_use_is_refused_by_its_process_until_it_is_given_back(tmp_path):
    run = RunDir.claim(tmp_path)
    with pytest.raises(
        RefcoreError, match=rf"another run is writing to .* \(process {os.getpid()} on .*\); name another"
    ):
        RunDir.claim(tmp_path)
    run.release()
    assert not (tmp_path / LOCK).exists()
    RunDir.claim(tmp_path).release()


@pytest.mark.fault("5.8")
@pytest.mark.fault("5.9")
def test_the_lock_and_the_unfinished_files_of_a_killed_run_are_cleared_and_said(tmp_path, caplog):
    code = f"""
        import os, signal
        from refcore.runs import rundir
        run = rundir.RunDir.claim({str(tmp_path)!r})
        rundir.partial(run.path / "config.yaml").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with caplog.at_level(logging.WARNING):
        run = RunDir.claim(tmp_path)
    assert "was locked by a run that was killed (process " in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == [LOCK]
    run.release()


@pytest.mark.fault("5.9")
def test_a_lock_is_given_back_with_the_object_that_holds_it(tmp_path):
    FolderLock.take(tmp_path)
    FolderLock.take(tmp_path).release()


@pytest.mark.fault("5.8")
def test_a_leftover_with_the_process_number_of_this_one_stops_no_write(tmp_path):
    (tmp_path / f".config.yaml.{os.getpid()}").write_text("left")
    rundir.write_text(tmp_path / "config.yaml", "new")
    assert (tmp_path / "config.yaml").read_text() == "new"


@pytest.mark.fault("5.8")
@pytest.mark.parametrize("claims", [RunDir.claim, rundir.refuse_taken])
def test_folders_that_can_hold_no_run_are_refused_in_one_line(claims, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for path, message in [
        ("", 'the output folder is ""'),
        (tmp_path / "link", 'is a link to ".*nowhere", which does not exist; make that folder'),
        (tmp_path / "file" / "run", 'cannot write ".*": ".*file" is a file'),
        (tmp_path / ("x" * 300), "File name too long; "),
        (f"{tmp_path}/a\0b", r'the output folder is ".*a\\u0000b"; expected the name of a folder'),
    ]:
        with pytest.raises(RefcoreError, match=message) as refused:
            claims(path)
        assert len(str(refused.value)) < 600


@pytest.mark.fault("5.8")
def test_a_read_only_folder_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RefcoreError, match=f'the folder "{tmp_path}" is read-only; name another place'):
        rundir.refuse_taken(tmp_path / "run" / "deep")


@pytest.mark.fault("5.8")
def test_nothing_is_written_over_unasked(tmp_path):
    rundir.refuse_existing(tmp_path / "new.json")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(
            RefcoreError, match="exists, and is never overwritten; remove it, or name another with --out"
        ):
            rundir.refuse_existing(path, "--out")
    with pytest.raises(RefcoreError, match="expected the name of a file with --html"):
        rundir.refuse_existing("", "--html")
    assert json.loads(rundir.to_json({})) == {}


@pytest.mark.fault("5.8")
def test_conversions_write_over_nothing_their_source_least(tmp_path):
    source = tmp_path / "head.safetensors"
    torch.save({"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}, source)
    before = source.read_bytes()
    (tmp_path / "blip2").mkdir()
    (tmp_path / "blip2" / "itg_head.safetensors").write_text("mine")
    (tmp_path / "hps").mkdir()
    (tmp_path / "hps" / "open_clip_config.json").write_text("mine")
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "config.json").write_text("mine")
    for conversion, out in [
        (convert_weights, source),
        (convert_head, source),
        (extract_itg_head, tmp_path / "blip2"),
        (hpsv2.convert_weights, tmp_path / "hps"),
        (convert_checkpoint, tmp_path / "reward"),
    ]:
        with pytest.raises(CheckpointError, match="exists, and is never overwritten; remove it, or name another"):
            conversion(source, out)
    assert source.read_bytes() == before
    with pytest.raises(CheckpointError, match="cannot be read as a torch checkpoint"):  # torch goes by the name
        convert_weights(source, tmp_path / "new.safetensors")
    assert convert_weights(source.rename(tmp_path / "head.pth"), tmp_path / "new.safetensors").is_file()


@pytest.mark.fault("5.8")
def test_commands_that_write_a_file_refuse_one_that_exists_before_they_work(tmp_path, capsys):
    taken = tmp_path / "taken.png"
    taken.write_text("mine")
    (tmp_path / "scene_0.png").write_text("mine")
    for argv in (
        ["bench", "show", tmp_path / "none", "--html", taken],
        ["bench", "show", tmp_path / "none", "--plot", taken],
        ["bench", "show", tmp_path / "none", "--grid", taken],
        ["smoothness", "playground", "--out", taken],
        ["playground", "draw", "--out", tmp_path],
        ["convert", "clip-weights", taken, taken],
    ):
        with pytest.raises(SystemExit, match="1"):
            main([str(word) for word in argv])
        assert "exists, and is never overwritten; remove it, or name another" in capsys.readouterr().err
    assert taken.read_text() == (tmp_path / "scene_0.png").read_text() == "mine"

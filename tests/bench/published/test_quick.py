"""`--quick` runs the whole path of every published benchmark on small checkpoints, and says that it means nothing."""

from __future__ import annotations

import json
import time

import pytest

from refcore.cli import main
from refcore_bench.commands.published import BENCHMARKS
from refcore_bench.published.measurements import Measurements
from refcore_bench.published.small_checkpoints import MAKERS
from refcore_bench.tasks import get

pytestmark = pytest.mark.slow
SECONDS = 120
"""Of the processor: a busy machine makes nothing slower than it is."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_whole_path_runs_in_two_minutes_and_is_labelled(name, tmp_path, capsys):
    out, began = tmp_path / "out", time.process_time()
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--quick", "--out", str(out)])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert time.process_time() - began < SECONDS
    title = " ".join(told.out.splitlines()[0].split())
    assert f"{get(name).wording.title}: small checkpoints, numbers without meaning" in " ".join(told.out.split())
    assert title.startswith(get(name).wording.title.split()[0])
    measured = Measurements(out)
    assert set(measured.metrics()) == set(get(name).metrics)
    assert set(measured.rows()["metric"]) == set(get(name).metrics)
    assert json.loads((out / "card.json").read_text())["meaningless"]
    assert "mean nothing" in (out / "README.md").read_text()
    assert {path.name for path in (out / "checkpoints").iterdir()} == set(MAKERS)

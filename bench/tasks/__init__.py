"""The tasks of the benchmark, each in a file: prompts, baselines, and who gives the verdict."""

from __future__ import annotations

from importlib import import_module

from refcore.errors import unknown
from refcore_bench.task import Task

TASKS = {
    "playground": "refcore_bench.tasks.playground:PLAYGROUND",
    "playground-blind": "refcore_bench.tasks.playground:BLIND",
    "natural": "refcore_bench.tasks.natural:NATURAL",
    "prompts": "refcore_bench.tasks.prompts:PROMPTS",
    "t2i-compbench": "refcore_bench.published.t2i_compbench:T2I_COMPBENCH",
    "geneval": "refcore_bench.published.geneval:GENEVAL",
    "geneval2": "refcore_bench.published.geneval2:GENEVAL2",
    "dpg-bench": "refcore_bench.published.dpg_bench:DPG_BENCH",
    "genai-bench": "refcore_bench.published.genai_bench:GENAI_BENCH",
    "genai-bench-527": "refcore_bench.published.genai_bench:GENAI_BENCH_527",
}
"""Name -> where the task is defined; imported on use."""


def get(name: str) -> Task:
    """The task with this name.

    Raises:
        RefcoreError: there is none.
    """
    if name not in TASKS:
        raise unknown("benchmark", name, TASKS)
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)
    return task

"""Examinations of a referee: each task is a reader of a published layout, or a drawing of scenes, with its measure."""

from __future__ import annotations

from importlib import import_module

from refcore.errors import unknown
from refcore_bench.examinations.task import Task

TASKS: dict[str, str] = {
    "winoground": "winoground",
    "hard-negatives": "hard_negatives",
    "pick-a-pic": "pick_a_pic",
    "hpdv2": "hpdv2",
    "bias": "bias",
}
"""Name of a task -> its module in this package."""


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        RefcoreError: there is none.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    task: Task = import_module(f"{__name__}.{TASKS[name]}").TASK
    return task

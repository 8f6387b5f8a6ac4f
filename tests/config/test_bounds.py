"""A config out of bounds ends in one line with the field, the value and what is allowed, and takes no time."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from refcore.cli.invert import parse_seeds
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml, load_yaml, override, parse_yaml
from refcore.engine.loading import pick_device
from refcore.errors import ConfigError, RefcoreError

MINIMAL: dict[str, Any] = {"prompts": ["a"], "canvas": {"name": "pixel"}, "priors": [{"name": "tv"}]}
NESTED_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.fault("5.6")
def test_aliases_that_repeat_aliases_are_counted_before_they_are_made():
    assert len(NESTED_ALIASES) < 577
    began = time.perf_counter()
    with pytest.raises(RefcoreError, match=r"line 6, column 4: it has more than 100,000 values; aliases count"):
        parse_yaml(NESTED_ALIASES, "it")
    assert time.perf_counter() - began < 1
    assert parse_yaml("a: &a [1]\nb: *a", "it") == {"a": [1], "b": [1]}


@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [1]\n: 2", "line 1, column 3: a key is a list; expected a name"),
        ("? {a: 1}\n: 2", "a key is a mapping; expected a name"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("a: " + "{a: " * 2000 + "1" + "}" * 2000, "nested more than 50 deep"),
        ("a: &x [*x]", "line 1, column 8: an alias stands inside what it repeats"),
        ("a: &x {b: *x}", "an alias stands inside what it repeats"),
        ("a: !!int x", 'column 4: "x" is not of the type int'),
        ("a: !!float x", '"x" is not of the type float'),
        ("a: !!bool x", '"x" is not of the type bool'),
        ("a: !!map x", "expected a mapping node"),
        ("a: !!timestamp 2001-99-99", "could not determine a constructor"),
        ("a: !!binary $", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: 0x_", '"0x_" is not of the type int'),
        ("a: " + "1" * 5000, "a number has 5,000 digits; expected at most 100"),
        ("a: " + "x" * 1_000_001, "characters; expected at most 1,000,000"),
        ("a: *b", "undefined alias"),
    ],
    ids=lambda value: value[:20],
)
def test_yaml_that_no_config_has_is_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(RefcoreError) as refused:
        parse_yaml(text, 'config file "x"')
    assert message in str(refused.value)
    assert len(str(refused.value)) < 300
    if "\n" not in text and len(text) < 1_000_000:
        with pytest.raises(RefcoreError, match="not valid YAML"):
            override({}, [f"priors={text.removeprefix('a: ')}" if text.startswith("a: &x") else f"b={{{text}}}"])


@pytest.mark.fault("5.10")
def test_a_date_is_text():
    assert parse_yaml("prompts: [2001-99-99, 2001-12-14]", "it") == {"prompts": ["2001-99-99", "2001-12-14"]}
    assert parse_yaml(dump_yaml({"a": "2001-12-14"}), "it") == {"a": "2001-12-14"}


@pytest.mark.fault("5.6")
def test_an_endless_file_is_read_no_further_than_a_config_can_be_long():
    with pytest.raises(RefcoreError, match="more than 1,000,000 characters"):
        load_yaml("/dev/zero")


@pytest.mark.fault("5.6")
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps=1000000000", "steps: input should be less than or equal to 1000000; given: 1000000000"),
        (f"steps={10**30}", "steps: input should be less than or equal to 1000000"),
        (f"candidates.count={10**30}", "candidates.count: input should be less than or equal to 1000"),
        (f"views.main.count={10**30}", "views.main.count: input should be less than or equal to 10000"),
        ("init={steps: 1001}", "init.steps: input should be less than or equal to 1000"),
        (f"seeds=[{2**63}]", "seeds.0: input should be less than"),
        ("candidates.count=1000", "prompts x seeds x candidates.count is 1,000,000; expected at most 100,000"),
    ],
)
def test_counts_have_bounds(assignment, message):
    many = {**MINIMAL, "seeds": list(range(1000))} if "=1000" in assignment and "cand" in assignment else MINIMAL
    with pytest.raises(ConfigError) as refused:
        presets.compose(None, many, [assignment])
    assert message in str(refused.value)


@pytest.mark.fault("5.6")
@pytest.mark.parametrize(
    ("text", "message"),
    [("0-3000000", "more than 10,000 seeds"), ("9" * 5000, "not a list of seeds"), (f"0-{10**30}", "not a list")],
)
def test_seeds_on_the_command_line_have_bounds(text, message):
    with pytest.raises(RefcoreError, match=message):
        parse_seeds(text)


@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    ("assignment", "field"),
    [
        ("optimizer.lr=1e38", "optimizer.lr"),
        ("optimizer.weight_decay=1e38", "optimizer.weight_decay"),
        ("optimizer.eps=1e308", "optimizer.eps"),
        ("noise=1e38", "noise"),
        ("noise={kind: linear, start: 1e38, end: 0}", "noise.start"),
        ("priors.0.weight={kind: warmup_cosine, peak: .inf, end: 0, warmup: 2}", "priors.0.weight.peak"),
    ],
)
def test_numbers_beyond_float32_are_refused_by_field(assignment, field):
    with pytest.raises(ConfigError) as refused:
        presets.compose(None, MINIMAL, [assignment])
    assert str(refused.value).startswith(f"{field}: input should be ")


@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    "assignment",
    ["priors." + "9" * 5000 + "=1", "priors." + "a." * 5000 + "a=1", "steps=" + "1" * 5000, "x" * 5000, "a.\0=1"],
    ids=lambda value: value[:12],
)
def test_long_assignments_end_in_a_short_line(assignment):
    with pytest.raises(RefcoreError) as refused:
        presets.compose(None, MINIMAL, [assignment])
    assert len(str(refused.value)) < 1000


@pytest.mark.fault("5.10")
def test_a_device_without_values_is_not_available():
    with pytest.raises(RefcoreError, match='device "meta" is not available here; use auto or cpu'):
        pick_device("meta")


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1e400", "clean"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
FIELDS = st.sampled_from(
    [*RunConfig.model_fields, "optimizer.lr", "views.main.count", "priors.0.weight", "priors.+", "priors.0", "seeds.0"]
)


@pytest.mark.fault("5.10")
@given(settings=st.dictionaries(FIELDS, VALUES, max_size=3))
@hypothesis_settings(max_examples=200, deadline=None)
def test_whatever_the_settings_hold_they_are_a_config_or_an_error_of_ours(settings):
    with contextlib.suppress(RefcoreError):
        RunConfig.from_settings({**MINIMAL, **{name: value for name, value in settings.items() if "." not in name}})


@pytest.mark.fault("5.10")
@given(field=FIELDS | st.text(max_size=20), text=st.text(max_size=40) | VALUES.map(str))
@hypothesis_settings(max_examples=200, deadline=None)
def test_whatever_is_assigned_it_is_a_config_or_an_error_of_ours(field, text):
    with contextlib.suppress(RefcoreError):
        presets.compose(None, MINIMAL, [f"{field}={text}"])

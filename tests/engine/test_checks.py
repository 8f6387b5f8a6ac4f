"""Plugins that break their contract or fail: each error names the plugin, its method and the rule, whatever they do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from toys import Smooth, ToyLatent, ToyPixel, ToyReferee, ToySds, toy_config

from refcore import registry
from refcore.contracts.augmentation import Augmentation
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import ParsedPrompt, Parser, Phrase
from refcore.engine.inversion import Inversion
from refcore.errors import ContractError, RefcoreError

pytestmark = [pytest.mark.fault("2.4"), pytest.mark.fault("5.5")]

Bad = Callable[..., Any]


def raises(error: BaseException) -> Bad:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


def changed(change: Callable[[Any], Any]) -> Callable[[Bad], Bad]:
    """What a method returns, changed."""
    return lambda real: lambda *args, **options: change(real(*args, **options))


def instead(value: Any) -> Callable[[Bad], Bad]:
    return lambda real: lambda *args, **options: value


def failing(error: BaseException) -> Callable[[Bad], Bad]:
    return lambda real: raises(error)


def first(act: Callable[..., Any]) -> Callable[[Bad], Bad]:
    """The method after an act on its arguments."""

    def wrap(real: Bad) -> Bad:
        def method(self: Any, *args: Any, **options: Any) -> Any:
            act(*args)
            return real(self, *args, **options)

        return method

    return wrap


DRAWS = {
    "torch": lambda *args: torch.rand(1),
    "random": lambda *args: random.random(),
    "numpy": lambda *args: np.random.rand(),
}
ANY_METHOD = {
    "ZeroDivisionError: division by zero": failing(ZeroDivisionError("division by zero")),
    "SystemExit: 3": failing(SystemExit(3)),
    "StopIteration": failing(StopIteration()),
    "KeyError: 'text'": failing(KeyError("text")),
}

JUDGE = {
    r"returned None; expected a tensor \[6\], one loss per view": instead(None),
    "a value of type float": instead(1.5),
    "a value of type list": changed(lambda loss: loss.tolist()),
    r"returned a tensor \[6, 2\]": changed(lambda loss: loss[:, None].expand(-1, 2)),
    r"returned a tensor \[6, 1\]": changed(lambda loss: loss[:, None]),
    r"returned a tensor \[\]": changed(lambda loss: loss.mean()),
    r"returned a tensor \[1\]": changed(lambda loss: loss.mean()[None]),
    r"returned a tensor \[5\]": changed(lambda loss: loss[1:]),
    "returned int64": changed(lambda loss: loss.long()),
    "returned complex128": changed(lambda loss: loss.to(torch.complex128)),
    "returned a tensor on meta": changed(lambda loss: loss.to("meta")),
    "lost the gradient of its views": changed(lambda loss: loss.detach()),
    "changed its views in place": first(lambda views, *rest: views.detach().mul_(0.5)),
    "changed its views in place; work on a copy": first(lambda views, *rest: views.data.mul_(0.5)),
    'changed its conditioning "text" in place': first(lambda views, conditioning, *rest: conditioning["text"].add_(1)),
    **{f"drew from the global generator of {name}": first(draw) for name, draw in DRAWS.items()},
    **ANY_METHOD,
}
BACKWARD = {
    "found no gradient: the value does not depend on the images": changed(
        lambda loss: torch.ones_like(loss, requires_grad=True) * 2
    ),
}
READ = {
    "returned None; expected a refcore.Conditioning": instead(None),
    "a value of type dict": instead({}),
    r"returned the prompts \['x'\]": instead(Conditioning(("x",))),
    r'returned "text" \[1, 6\]; expected 2 rows': changed(
        lambda c: Conditioning(c.prompts, {"text": c["text"][:1]}),
    ),
    'returned "text" that requires a gradient': changed(
        lambda c: Conditioning(c.prompts, {"text": c["text"].clone().requires_grad_()})
    ),
    'a value of type list as "text"': changed(lambda c: Conditioning(c.prompts, {"text": [1, 2]})),  # type: ignore[dict-item]
    "returned truncated": changed(lambda c: Conditioning(c.prompts, c.tensors, ("cut",))),
    "returned notes": changed(lambda c: Conditioning(c.prompts, c.tensors, (), (1, 2))),  # type: ignore[arg-type]
    **ANY_METHOD,
}
GRADIENT = {
    "returned None; expected a pair": instead(None),
    "returned a value of type Tensor; expected a pair": changed(lambda pair: pair[0]),
    r"returned a tensor \[1, 1, 32, 32\]": changed(lambda pair: (pair[0][:1, :1], pair[1])),
    r"returned a tensor \[\]": changed(lambda pair: (pair[0].sum(), pair[1])),
    "returned int64": changed(lambda pair: (pair[0].long(), pair[1])),
    "returned a gradient that requires a gradient": changed(lambda pair: (pair[0].clone().requires_grad_(), pair[1])),
    r"returned a tensor \[2, 1\]; expected a tensor \[2\], one value per sample": changed(
        lambda pair: (pair[0], pair[1][:, None])
    ),
    "a value of type float": changed(lambda pair: (pair[0], 1.0)),
    "returned a value that requires a gradient": changed(lambda pair: (pair[0], pair[1].clone().requires_grad_())),
    "changed its x in place": first(lambda x, *rest: x.mul_(0.5)),
    **{f"drew from the global generator of {name}": first(draw) for name, draw in DRAWS.items()},
    **ANY_METHOD,
}
DECODE = {
    "returned None; expected a tensor": instead(None),
    r"returned a tensor \[2, 1, 32, 32\]; expected a tensor \[2, 3, 32, 32\]": changed(lambda image: image[:, :1]),
    r"returned a tensor \[1, 3, 32, 32\]": changed(lambda image: image[:1]),
    r"returned a tensor \[2, 3, 16, 32\]": changed(lambda image: image[:, :, ::2]),
    "returned uint8": changed(lambda image: (255 * image).to(torch.uint8)),
    "lost the gradient of its parameters": changed(lambda image: image.detach()),
    "returned colours from": changed(lambda image: 255 * image),
    'changed its tensor "latent" in place': first(lambda params, at: params["latent"].data.mul_(2)),
    "drew from the global generator of torch": first(DRAWS["torch"]),
    **ANY_METHOD,
}
DECODE_BACKWARD = {
    "found no gradient: the image does not depend": changed(lambda i: torch.full_like(i, 0.5, requires_grad=True) * 1),
}
INIT = {
    "returned None; expected a dict": instead(None),
    "a value of type dict; expected a dict of tensors": instead({}),
    r'returned "latent" \[1, 4, 8, 8\]; expected 2 rows': changed(lambda p: {"latent": p["latent"][:1]}),
    "returned a value of type list": changed(lambda p: {"latent": p["latent"].tolist()}),
    'returned "latent" in int64': changed(lambda p: {"latent": p["latent"].long()}),
    'NaN or infinity in "latent"': changed(lambda p: {"latent": p["latent"] * torch.nan}),
    'returned no "latent", which latent_name names': changed(lambda p: {"other": p["latent"]}),
    "with the key 0": changed(lambda p: {0: p["latent"]}),
    "drew from the global generator of torch, so that no run repeats; use the rng": first(DRAWS["torch"]),
    **ANY_METHOD,
}
ENCODE = {
    "returned None; expected a dict": instead(None),
    r"expected 1 row": changed(lambda p: {name: value[:0] for name, value in p.items()}),
    "NaN or infinity": changed(lambda p: {name: value * torch.inf for name, value in p.items()}),
    **ANY_METHOD,
}
PRIOR_ENCODE = {
    "returned None; expected a tensor": instead(None),
    r"returned a tensor \[2, 4\]": changed(lambda z: z.mean((2, 3))),
    "lost the gradient of its images": changed(lambda z: z.detach()),
    **ANY_METHOD,
}
SAMPLE = {
    "returned None; expected a tensor": instead(None),
    r"returned a tensor \[1, 4, 8, 8\]": changed(lambda z: z[:1]),
    "drew from the global generator of torch": first(DRAWS["torch"]),
    **ANY_METHOD,
}
DRAW = {
    "returned None; expected a dict": instead(None),
    'a value of type float as "gain"': changed(lambda d: {"gain": 1.0}),
    r'returned "gain" \[2\]; expected 6 rows': changed(lambda d: {"gain": d["gain"][:2]}),
    'returned "gain" on meta': changed(lambda d: {"gain": d["gain"].to("meta")}),
    "drew from the global generator of torch": first(DRAWS["torch"]),
    **ANY_METHOD,
}
APPLY = {
    "returned None; expected a tensor": instead(None),
    r"returned a tensor \[6, 1, 16, 16\]": changed(lambda v: v[:, :1]),
    r"returned a tensor \[1, 3, 16, 16\]": changed(lambda v: v[:1]),
    "returned float32 for float64": changed(lambda v: v.float()),
    "lost the gradient of its views": changed(lambda v: v.detach()),
    "changed its views in place": first(lambda views, params: views.mul_(0.5)),
    "drew from the global generator of torch": first(DRAWS["torch"]),
    **ANY_METHOD,
}
MATRIX = {
    "returned None; expected a tensor": instead(None),
    r"returned a tensor \[3, 3\]; expected a tensor \[6, 3, 3\]": changed(lambda m: m[0]),
    r"returned a tensor \[6, 2, 3\]": changed(lambda m: m[:, :2]),
    "returned int64": changed(lambda m: m.long()),
    **ANY_METHOD,
}
PARSE = {
    "returned None; expected a refcore.ParsedPrompt": instead(None),
    "a value of type list": instead(["a cat"]),
    'returned the parts of "other"': changed(lambda p: ParsedPrompt("other", p.things)),
    "failed with TypeError": changed(lambda p: ParsedPrompt(p.prompt, ("a cat",))),  # type: ignore[arg-type]
    "a thing with the text ''": changed(lambda p: ParsedPrompt(p.prompt, (Phrase(""),))),
    **ANY_METHOD,
}
UPDATE = {
    "changed its x in place": first(lambda x, *rest: x.mul_(0)),
    "drew from the global generator of torch": first(DRAWS["torch"]),
    **ANY_METHOD,
}


class Gain(Augmentation):
    def draw(self, size: Any, rng: Any, at: Any) -> Any:
        return {"gain": rng.uniform(0.9, 1.0)}

    def apply(self, views: Any, params: Any) -> Any:
        return views * params["gain"].view(-1, 1, 1, 1)


class Flip(Augmentation):
    geometric: ClassVar[bool] = True

    def draw(self, size: Any, rng: Any, at: Any) -> Any:
        return {"sign": rng.integers(0, 2) * 2.0 - 1}

    def matrix(self, params: Any) -> Any:
        one = torch.ones_like(params["sign"])
        return torch.diag_embed(torch.stack([params["sign"], one, one], 1))


class Whole(Parser):
    def parse(self, prompt: str) -> ParsedPrompt:
        return ParsedPrompt(prompt, (Phrase(prompt),))


class Learner(Smooth):
    learns: ClassVar[bool] = True

    def update(self, x: Any, conditioning: Any, at: Any, rng: Any) -> None:
        pass


class OnParams(Smooth):
    space: ClassVar[Literal["latent", "image", "params"]] = "params"

    def gradient(self, x: Any, conditioning: Any, at: Any, rng: Any) -> Any:
        return {name: torch.zeros_like(value) for name, value in x.items()}, None


ON_PARAMS = {
    "returned a value of type Tensor as the gradient; expected a dict": changed(lambda pair: (pair[0]["latent"], None)),
    "returned a gradient of 'other'; known: latent": changed(lambda pair: ({"other": pair[0]["latent"]}, None)),
    r"returned a tensor \[1, 4, 8, 8\]": changed(lambda pair: ({"latent": pair[0]["latent"][:1]}, None)),
}
PLAIN: dict[str, Any] = {"referees": [{"name": "toy"}], "priors": [], "views": {"main": {"count": 3}}, "steps": 2}
REFEREE = {**PLAIN, "referees": [{"name": "bad"}]}
CANVAS = {**PLAIN, "canvas": {"name": "bad"}}
PRIOR = {**PLAIN, "priors": [{"name": "bad"}]}
AUGMENTATION = {**PLAIN, "views": {"main": {"count": 3, "augment": [{"name": "bad"}]}}}
TABLE: list[tuple[registry.Kind, type, str, dict[str, Any], dict[str, Any]]] = [
    ("referees", ToyReferee, "judge", JUDGE, REFEREE),
    ("referees", ToyReferee, "judge", BACKWARD, REFEREE),
    ("referees", ToyReferee, "read", READ, REFEREE),
    ("priors", Smooth, "gradient", GRADIENT, PRIOR),
    ("priors", OnParams, "gradient", ON_PARAMS, PRIOR),
    ("priors", ToySds, "encode", PRIOR_ENCODE, {**PRIOR, "canvas": {"name": "toy_pixel"}}),
    ("priors", ToySds, "sample", SAMPLE, {**PRIOR, "init": "sample"}),
    ("priors", Smooth, "load", ANY_METHOD, PRIOR),
    ("priors", Smooth, "accept", ANY_METHOD, PRIOR),
    ("priors", Learner, "update", UPDATE, PRIOR),
    ("canvases", ToyLatent, "init", INIT, CANVAS),
    ("canvases", ToyLatent, "decode", DECODE, CANVAS),
    ("canvases", ToyLatent, "decode", DECODE_BACKWARD, CANVAS),
    ("canvases", ToyLatent, "load", ANY_METHOD, CANVAS),
    ("canvases", ToyPixel, "encode", ENCODE, {**CANVAS, "init": "start.png"}),
    ("augmentations", Gain, "draw", DRAW, AUGMENTATION),
    ("augmentations", Gain, "apply", APPLY, AUGMENTATION),
    ("augmentations", Flip, "matrix", MATRIX, AUGMENTATION),
    ("parsers", Whole, "parse", PARSE, {**PLAIN, "referees": [{"name": "toy", "phrases": "bad"}]}),
]
CASES = [
    pytest.param(kind, cls, method, rule, wrap, fields, id=f"{cls.__name__}-{method}-{i}-{j}")
    for i, (kind, cls, method, rules, fields) in enumerate(TABLE)
    for j, (rule, wrap) in enumerate(rules.items())
]


@pytest.mark.parametrize(("kind", "cls", "method", "rule", "wrap", "fields"), CASES)
def test_a_plugin_that_breaks_its_contract_is_named_with_its_method_and_the_rule(
    kind: registry.Kind,
    cls: type,
    method: str,
    rule: str,
    wrap: Callable[[Bad], Bad],
    fields: dict[str, Any],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    from PIL import Image

    Image.new("RGB", (24, 24), (90, 120, 200)).save("start.png")
    bad = type(cls)("Bad", (cls,), {method: wrap(getattr(cls, method))})
    registry.register(kind, "bad", bad, "misbehaves")
    with pytest.raises(ContractError, match=rule) as caught:
        for _ in Inversion(toy_config(**fields)):
            pass
    message = str(caught.value)
    assert '"bad"' in message
    assert f"{method})" in message
    assert "\n" not in message
    if wrap in ANY_METHOD.values():
        assert isinstance(caught.value.__cause__, BaseException)


def test_the_table_is_long_enough() -> None:
    assert len(CASES) > 100


def run(kind: registry.Kind, cls: type, **fields: Any) -> None:
    registry.register(kind, "bad", cls, "misbehaves")
    for _ in Inversion(toy_config(**{**PLAIN, **fields})):
        pass


def test_a_referee_that_sets_no_input_size_is_refused_when_it_is_loaded() -> None:
    class Bad(ToyReferee):
        def load(self, device: torch.device, dtype: torch.dtype) -> None:
            pass

    with pytest.raises(ContractError, match=r'referee "bad" \(load\) left input_size as None'):
        run("referees", Bad, referees=[{"name": "bad"}])


def test_a_canvas_of_another_size_than_asked_for_is_refused() -> None:
    class Bad(ToyPixel):
        def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
            super().load(device, dtype, (8, 8))

    with pytest.raises(ContractError, match=r'canvas "bad" \(load\) set size to \(8, 8\); expected \(16, 16\)'):
        run("canvases", Bad, canvas={"name": "bad"}, size=16)


def test_a_constructor_that_fails_is_named_with_its_field() -> None:
    class Bad(ToyReferee):
        def __init__(self, config: Any = None) -> None:
            raise ZeroDivisionError("by hand")

    with pytest.raises(ContractError, match=r'referee "bad" in referees\.0 cannot be made: ZeroDivisionError: by hand'):
        run("referees", Bad, referees=[{"name": "bad"}])


def test_a_missing_method_is_named() -> None:
    bad = type(ToyReferee)("Bad", (ToyReferee.__mro__[1],), {})
    with pytest.raises(RefcoreError, match=r'referee "bad" in referees\.0 cannot be made: TypeError: .*abstract'):
        run("referees", bad, referees=[{"name": "bad"}])


def test_the_label_of_the_term_is_named_where_it_is_not_the_plugins_name() -> None:
    class Bad(ToyReferee):
        def judge(self, *args: Any, **options: Any) -> Any:
            return None

    with pytest.raises(ContractError, match=r'referee "bad" of "shape" \(judge\) returned None'):
        run("referees", Bad, referees=[{"name": "bad", "label": "shape"}])


def test_what_is_meant_for_users_and_interrupts_pass_as_they_are() -> None:
    class Says(ToyReferee):
        def judge(self, *args: Any, **options: Any) -> Any:
            raise RefcoreError("this prompt has no colour")

    class Stops(ToyReferee):
        def judge(self, *args: Any, **options: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(RefcoreError, match=r"^this prompt has no colour$"):
        run("referees", Says, referees=[{"name": "bad"}])
    registry.unregister("referees", "bad")
    with pytest.raises(KeyboardInterrupt):
        run("referees", Stops, referees=[{"name": "bad"}])

"""From a config to loaded models: plugins' own fields checked, weights loaded, prompts read, misfits refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from refcore import images, registry
from refcore.calibration import Calibration
from refcore.config.combine import ConflictAware, NormBalance
from refcore.config.run import RunConfig
from refcore.config.schedule import values
from refcore.config.start import SampleStart
from refcore.config.terms import PROMPT, PluginUse, RefereeTerm
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import Parser, load_parser
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine.combine import Combiner, NormBalanceGradients, SumGradients
from refcore.engine.search import searched
from refcore.engine.step import Engine, PriorUse, RefereeUse, WitnessUse
from refcore.engine.views import Group, resize
from refcore.errors import ParseError, RefcoreError
from refcore.explain import validated
from refcore.plugin import Plugin
from refcore.rng import Rng


def resolve(config: RunConfig) -> RunConfig:
    """The config with every plugin's own fields checked and filled in. Imports the plugins, loads no model.

    Raises:
        RefcoreError: an unknown or broken plugin, or a field that it does not have, dotted.
    """
    settings = config.settings()
    for field, kind, use in uses(config):
        own = plugin_config(kind, use, field)
        place: Any = settings
        for part in field.split("."):
            place = place[int(part) if part.isdecimal() and isinstance(place, list) else part]
        place["config"] = own.model_dump(mode="json")
    return RunConfig.from_settings(settings)


def plugin_config(kind: registry.Kind, use: PluginUse, field: str) -> Any:
    """The plugin's own config, read as its class wants it.

    Raises:
        RefcoreError: naming `field`, the dotted place of `use`.
    """
    return validated(registry.get(kind, use.name, field).Config, use.config, f"{field}.config")


def build(config: RunConfig) -> Engine:
    """Loads everything that a run needs; models that several terms share are loaded once.

    Raises:
        RefcoreError: no prompt, an unknown plugin or field, a missing checkpoint, a size or a prior that the canvas
            refuses, a negative weight on a loss without upper bound, with `strict` a prompt too long for a model.
    """
    if not config.prompts:
        raise RefcoreError("prompts is empty; expected at least one prompt")
    return _Builder(config).engine()


def pick_device(name: str) -> torch.device:
    """The torch device of a config's `device`.

    Raises:
        RefcoreError: torch has no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises many kinds here; each means that the device cannot be used
        raise RefcoreError(f'device "{name}" is not available here; use auto or cpu') from error
    return device


def start(engine: Engine) -> CanvasParams:
    """The parameters of step 0, for every candidate of every sample: drawn from its key, a sample, or the `init` image.

    Raises:
        RefcoreError: the image is unreadable, or the canvas cannot start from one; the canvas has no latents or no
            prior can be sampled.
    """
    config, canvas = engine.config, engine.canvas
    dtype = torch.float64 if config.dtype == "float64" else torch.float32

    def own(params: CanvasParams) -> CanvasParams:
        return {name: value.detach().to(engine.device, dtype, copy=True) for name, value in params.items()}

    with torch.no_grad():
        if config.init is None or isinstance(config.init, SampleStart):
            params = own(canvas.init(Rng(engine.keys, 0, "init", device=engine.device)))
            return searched(engine, config.init, params) if config.init else params
        image = _middle(images.read(config.init).to(engine.device)[None], canvas.size)
        return own(canvas.encode(resize(image, canvas.size).expand(len(engine.keys), -1, -1, -1)))


def combiner(config: RunConfig) -> Combiner:
    """The combiner that a config asks for.

    Raises:
        RefcoreError: what it needs is not installed.
    """
    if isinstance(config.combine, NormBalance):
        return NormBalanceGradients(config.combine, config.steps)
    if isinstance(config.combine, ConflictAware):
        from refcore.engine.jacobian import JacobianCombiner  # torchjd is an extra

        return JacobianCombiner(config.combine, config.steps, config.prior_labels)
    return SumGradients()


class _Builder:
    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._referees: dict[tuple[Any, ...], Any] = {}
        self._ready: set[int] = set()

    def engine(self) -> Engine:
        config = self.config
        plugins: dict[str, Any] = {field: self._make(kind, use, field) for field, kind, use in uses(config)}
        for i, term in enumerate(config.referees):
            referee = plugins[f"referees.{i}"]
            lowest = min(values(term.weight, config.steps, term.window), default=0.0)
            if lowest < 0 and not referee.bounded_above:
                raise RefcoreError(
                    f'referees.{i}.weight falls to {lowest:g}, but the loss of "{term.name}" has no upper bound: '
                    "pushing it up has no end; use wanted: false with a positive weight, which is bounded"
                )
        canvas: Canvas = plugins["canvas"]
        canvas.load(self.device, getattr(torch, config.dtype), config.image_size)
        return Engine(
            config,
            canvas,
            combiner(config),
            referees=[
                RefereeUse(
                    label=label,
                    term=term,
                    **self._asked(plugins[f"referees.{i}"], term, label, plugins.get(f"referees.{i}.phrases.parser")),
                    autocast=self._autocast(term),
                    satisfied_at=self._satisfied_at(plugins[f"referees.{i}"], term, f"referees.{i}"),
                )
                for i, (label, term) in enumerate(zip(config.referee_labels, config.referees, strict=True))
            ],
            priors=[
                self._prior(plugins[f"priors.{i}"], term, label, canvas)
                for i, (label, term) in enumerate(zip(config.prior_labels, config.priors, strict=True))
            ],
            witnesses=[
                WitnessUse(
                    label=label,
                    **self._asked(plugins[f"witnesses.{i}"], term, label),
                    autocast=self._autocast(term),
                    coarse=term.coarse,
                )
                for i, (label, term) in enumerate(zip(config.witness_labels, config.witnesses, strict=True))
            ],
            groups={
                name: Group(name, group, [plugins[f"views.{name}.augment.{i}"] for i in range(len(group.augment))])
                for name, group in config.view_groups.items()
            },
            device=self.device,
            warnings=self.warnings,
            notes=self.notes,
        )

    def _make(self, kind: registry.Kind, use: PluginUse, field: str) -> Plugin:
        """The plugin of `use`, not loaded yet; equal uses of a referee are one."""
        own = plugin_config(kind, use, field)
        if kind == "parsers":
            return load_parser(use.name, use.config, field)
        if kind != "referees":
            return registry.get(kind, use.name, field)(own)
        key = (kind, use.name, own.model_dump_json(), getattr(use, "dtype", None))
        if key not in self._referees:
            self._referees[key] = registry.get(kind, use.name, field)(own)
        return self._referees[key]

    def _asked(self, referee: Referee, term: Any, label: str, parser: Parser | None = None) -> dict[str, Any]:
        if id(referee) not in self._ready:
            referee.load(self.device, self._dtype(term))
            self._ready.add(id(referee))
        texts, rows = self._texts(term.prompt)
        found: dict[str, Any] = {"referee": referee, "rows": rows}
        if parser is not None:
            sentences = self._sentences(parser, label)
            asked = [[term.prompt.replace(PROMPT, sentence) for sentence in own] for own in sentences]
            texts = list(dict.fromkeys([*texts, *(text for own in asked for text in own)]))
            found["phrases"] = tuple(tuple(texts.index(text) for text in own) for own in asked)
        conditioning = referee.read(texts)
        self._tell(conditioning, label)
        return {**found, "conditioning": conditioning.to(self.device)}

    def _sentences(self, parser: Parser, label: str) -> list[tuple[str, ...]]:
        """The phrases of each sample's prompt, and a note of what they are."""
        prompts = [prompt for prompt, _ in self.config.samples]
        try:
            parts = {prompt: parser.parse(prompt).sentences() for prompt in dict.fromkeys(prompts)}
        except ParseError as error:
            raise ParseError(f'"{label}" cannot judge the phrases of a prompt: {error}') from error
        by = f'the {"oracle " if parser.oracle else ""}parser "{parser.name}"'
        for prompt, own in parts.items():
            self.notes.append(f'"{label}", "{_short(prompt)}": its phrases, by {by}: {"; ".join(own)}')
        return [parts[prompt] for prompt in prompts]

    def _satisfied_at(self, referee: Referee, term: RefereeTerm, field: str) -> tuple[float, ...] | None:
        """[B] the loss at which a referee is satisfied with each sample."""
        satisfied_at = term.satisfied_at
        if satisfied_at is None:
            return None
        if satisfied_at.calibration is None or satisfied_at.quantile is None:
            assert satisfied_at.loss is not None
            return (satisfied_at.loss,) * len(self.config.samples)
        own = referee.config.model_dump(mode="json")
        where = f'{field}.satisfied_at: "{satisfied_at.calibration}"'
        curve = Calibration.read(satisfied_at.calibration).curve(term.name, own, term.prompt, term.wanted, where)
        return tuple(
            curve.of(satisfied_at.quantile, prompt if satisfied_at.per == "prompt" else None)
            for prompt, _ in self.config.samples
        )

    def _prior(self, prior: Prior, term: Any, label: str, canvas: Canvas) -> PriorUse:
        prior.load(self.device, self._dtype(term))
        prior.accept(canvas)
        if prior.couples_samples and len(self.config.samples) * self.config.candidates.count > 1:
            self.notes.append(
                f'"{label}" couples samples: what becomes of an image depends on which others are made with it'
            )
        texts, rows = self._texts(term.prompt)
        conditioning = prior.read(texts)
        self._tell(conditioning, label)
        return PriorUse(
            label=label,
            term=term,
            prior=prior,
            conditioning=conditioning.to(self.device).take(rows),
            autocast=self._autocast(term),
        )

    def _texts(self, template: str) -> tuple[list[str], tuple[int, ...]]:
        """The distinct texts that a term is asked, and which of them belongs to each sample."""
        asked = [template.replace(PROMPT, prompt) for prompt, _ in self.config.samples]
        texts = list(dict.fromkeys(asked))
        return texts, tuple(texts.index(text) for text in asked)

    def _tell(self, conditioning: Conditioning, label: str) -> None:
        for prompt, cut in zip(conditioning.prompts, conditioning.truncated, strict=False):
            if cut:
                told = f'"{label}" does not read the end of the prompt "{_short(prompt)}": "{cut}" is cut'
                if self.config.strict:
                    raise RefcoreError(f"{told}; shorten the prompt, or run without strict")
                self.warnings.append(told)
        for prompt, note in zip(conditioning.prompts, conditioning.notes, strict=False):
            if note:
                self.notes.append(f'"{label}", "{_short(prompt)}": {note}')

    def _dtype(self, term: Any) -> torch.dtype:
        return getattr(torch, term.dtype or self.config.dtype)

    def _autocast(self, term: Any) -> torch.dtype | None:
        name = self.config.autocast if term.autocast is None else term.autocast
        return None if name in (None, "off") else getattr(torch, name)


def uses(config: RunConfig) -> list[tuple[str, registry.Kind, PluginUse]]:
    """(dotted field, kind, use) of every plugin that a config names."""
    found: list[tuple[str, registry.Kind, PluginUse]] = [("canvas", "canvases", config.canvas)]
    terms: Sequence[tuple[str, registry.Kind, Sequence[PluginUse]]] = [
        ("referees", "referees", config.referees),
        ("priors", "priors", config.priors),
        ("witnesses", "referees", config.witnesses),
        *((f"views.{name}.augment", "augmentations", group.augment) for name, group in config.views.items()),
    ]
    for field, kind, uses in terms:
        found += [(f"{field}.{i}", kind, use) for i, use in enumerate(uses)]
    return found + [
        (f"referees.{i}.phrases.parser", "parsers", term.phrases.parser)
        for i, term in enumerate(config.referees)
        if term.phrases is not None
    ]


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest middle part of [1, 3, H, W] that has the aspect of `size`."""
    height, width = image.shape[-2:]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[..., top : top + rows, left : left + columns]


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."

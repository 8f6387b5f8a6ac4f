"""Loading: plugins made once and loaded, prompts read, and panels and priors of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from refcore import registry
from refcore.calibration import Calibration
from refcore.config.panel import Labelled, PanelConfig
from refcore.config.schedule import extremes
from refcore.config.terms import PROMPT, BaseTerm, PluginUse, PriorTerm, RefereeTerm, Witness
from refcore.contracts.canvas import Canvas, PromptedCanvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import Parser
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine import checks
from refcore.engine.int8 import store_in_int8
from refcore.engine.models import Models
from refcore.engine.offload import offload, resident
from refcore.engine.panel import LoadedReferee, LoadedTerm, Panel
from refcore.engine.precision import dtype_of
from refcore.engine.step import LoadedPrior
from refcore.engine.views import Group
from refcore.errors import CANVAS, ParseError, RefcoreError, shortened
from refcore.plugin import SINGULAR, Plugin

SHORT = 60
"""Characters of a prompt in a message."""
LONGEST_CUT = 240
"""Most characters of unread text in a message."""


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
        torch.zeros(1, device=device).item()  # not on "meta", where tensors have no values
    except Exception as error:  # torch raises many kinds here; each means that the device cannot be used
        raise RefcoreError(f'device "{name}" is not available here; use auto or cpu') from error
    return device


def thresholds(term: RefereeTerm, config: Any, prompts: Sequence[str], field: str) -> tuple[float, ...] | None:
    """[B] loss at which a referee is satisfied with the sample of each prompt; None without `satisfied_at`.

    Args:
        term: of the config.
        config: the referee's own.
        prompts: [B].
        field: of the term, for messages.

    Raises:
        RefcoreError: a calibration that cannot be read, or that lacks this referee or a prompt.
    """
    settings = term.satisfied_at
    if settings is None:
        return None
    if settings.calibration is None or settings.quantile is None:
        assert settings.loss is not None
        return (settings.loss,) * len(prompts)
    where = f'{field}.satisfied_at: "{settings.calibration}"'
    own = config.model_dump(mode="json")
    curve = Calibration.read(settings.calibration).curve(term.name, own, term.prompt, term.wanted, where)
    quantile, by_prompt = settings.quantile, settings.per == "prompt"
    return tuple(curve.of(quantile, prompt if by_prompt else None) for prompt in prompts)


def prompts_of(config: PanelConfig) -> list[str]:
    """[B] the prompt of each sample."""
    return [prompt for prompt, _ in config.samples]


def load_panel(config: PanelConfig, models: Models | None = None) -> Panel:
    """The referees and witnesses of a config, loaded, with the prompts read and the chunks planned.

    Args:
        config: of the panel.
        models: where loaded models are looked for first, and kept.

    Raises:
        RefcoreError: as `refcore.engine.build.build`, as far as referees are concerned.
    """
    panel = Loader(config, models).panel()
    panel.plan()
    panel.finish_reading()
    return panel


class Loader:
    """Loads plugins for the samples of a config. Equal uses of a referee are one, loaded once."""

    def __init__(self, config: PanelConfig, models: Models | None = None) -> None:
        self.config = config
        self.models = models
        """Where models are shared with other runs; None: nowhere."""
        self.device = pick_device(config.device)
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._shared = Models() if models is None else models
        """Where equal uses are found: within this run, or among `models`."""
        self._uses: Counter[Hashable] = Counter()
        """Equal uses of a prior so far, each of which is a prior of its own."""

    def panel(self) -> Panel:
        """The panel of the config; its chunks are not planned yet."""
        groups = {
            name: Group(
                name,
                group,
                [create("augmentations", use, f"views.{name}.augment.{i}") for i, use in enumerate(group.augment)],
            )
            for name, group in self.config.view_groups.items()
        }
        referees = [self._term(labelled) for labelled in self.config.referees]
        witnesses = [self._witness(labelled) for labelled in self.config.witnesses]
        return Panel(self.config, referees, witnesses, groups, self.device, self.warnings, self.notes, self.models)

    def canvas(self, use: PluginUse, size: tuple[int, int] | None) -> Canvas:
        """The canvas, loaded for images of `size` (None: its default)."""
        dtype = dtype_of(self.config.dtype)
        made: Canvas = create("canvases", use, "canvas")
        if self.models is None:
            checks.load_canvas(made, self.device, dtype, size)
            return made
        return self.models.loaded(
            made, lambda canvas: checks.load_canvas(canvas, self.device, dtype, size), self.device, dtype, size
        )

    def canvas_prompts(self, canvas: Canvas, template: str) -> Conditioning | None:
        """What a canvas reads of the samples' prompts, row b for sample b; None where it reads none.

        Raises:
            RefcoreError: with `strict` a prompt too long for it.
        """
        if not isinstance(canvas, PromptedCanvas):
            return None
        texts, index = self._texts(template)
        return self._read(canvas, texts, CANVAS).take(index)

    def prior(self, term: PriorTerm, label: str, field: str, canvas: Canvas, tracks: int) -> LoadedPrior:
        """A prior, loaded, accepted by the canvas, with its prompts read.

        Args:
            term: of the config.
            label: of the term.
            field: of the term in the config, "priors.0".
            canvas: loaded.
            tracks: of all samples together.

        Raises:
            RefcoreError: a missing checkpoint, a canvas that it cannot work on, with `strict` a prompt too long for it.
        """
        prior = self._prior(create("priors", term, field), term, label, canvas, field)
        with resident(prior), checks.Call(prior, "accept", label):
            prior.accept(canvas)
        if prior.couples_samples and tracks > 1:
            self.notes.append(
                f'"{label}" couples samples: what becomes of an image depends on which others are made with it'
            )
        texts, index = self._texts(term.prompt)
        conditioning, device = self._read(prior, texts, label).take(index), self._device(term)
        return LoadedPrior(
            label=label,
            term=term,
            prior=prior,
            conditioning=conditioning.to(device),
            autocast=self._autocast(term),
            device=device,
        )

    def _term(self, labelled: Labelled[RefereeTerm]) -> LoadedTerm:
        """A referee that images are optimised for."""
        term, label, field = labelled.term, labelled.label, labelled.field
        parser: Parser | None = None
        if term.phrases is not None:
            parser = self._parser(term.phrases.parser, f"{field}.phrases.parser")
        referee = self._referee(term, field, label)
        lowest, _ = extremes(term.weight, self.config.steps, term.window)
        if lowest < 0 and not referee.bounded_above:
            raise RefcoreError(
                f'{field}.weight falls to {lowest:g}, but the loss of "{term.name}" has no upper bound: '
                "pushing it up has no end; use wanted: false with a positive weight, which is bounded"
            )
        texts, index = self._texts(term.prompt)
        phrases: tuple[tuple[int, ...], ...] | None = None
        if parser is not None:
            sentences = self._sentences(parser, label)
            asked = [[term.prompt.replace(PROMPT, sentence) for sentence in own] for own in sentences]
            texts = list(dict.fromkeys([*texts, *(text for own in asked for text in own)]))
            phrases = tuple(tuple(texts.index(text) for text in own) for own in asked)
        return LoadedTerm(
            label=label,
            referee=referee,
            conditioning=self._read(referee, texts, label).to(self._device(term)),
            prompt_index=index,
            autocast=self._autocast(term),
            device=self._device(term),
            term=term,
            satisfied_at=thresholds(term, referee.config, prompts_of(self.config), field),
            phrases=phrases,
        )

    def _witness(self, labelled: Labelled[Witness]) -> LoadedReferee:
        """A referee that only scores."""
        term = labelled.term
        referee = self._referee(term, labelled.field, labelled.label)
        texts, index = self._texts(term.prompt)
        device = self._device(term)
        conditioning = self._read(referee, texts, labelled.label).to(device)
        return LoadedReferee(labelled.label, referee, conditioning, index, self._autocast(term), term.coarse, device)

    def _referee(self, use: BaseTerm, field: str, label: str) -> Referee:
        """The loaded referee of a use; equal uses are one."""
        made: Referee = create("referees", use, field)
        device, dtype = self._device(use), self._dtype(use)

        def load(referee: Referee) -> None:
            checks.load_referee(referee, device, dtype, label)
            self._store(referee, use)

        found = self._shared.loaded(made, load, device, dtype, *self._storage(use))
        remarks = [f'"{use.name}": {remark}' for remark in found.remarks]
        self.warnings += [remark for remark in remarks if remark not in self.warnings]
        return found

    def _prior(self, made: Prior, term: PriorTerm, label: str, canvas: Canvas, field: str) -> Prior:
        """The loaded prior of a term, for a canvas; shared with other runs, but not between terms of one."""
        device, dtype = self._device(term), self._dtype(term)
        if made.learns and term.weights == "int8":
            raise RefcoreError(f'{field}.weights is int8, but "{made.name}" trains its network; leave weights out')

        def load(prior: Prior) -> None:
            with checks.Call(prior, "load", label):
                prior.load(device, dtype)
            self._store(prior, term)

        if self.models is None:
            load(made)
            return made
        storage = self._storage(term)
        key = (device, dtype, *storage, type(canvas), canvas.config.model_dump_json(), canvas.size)
        use = (type(made), made.config.model_dump_json(), *key)
        self._uses[use] += 1
        return self.models.loaded(made, load, *key, self._uses[use])

    def _parser(self, use: PluginUse, field: str) -> Parser:
        """The loaded parser of a use."""

        def load(parser: Parser) -> None:
            with checks.Call(parser, "load"):
                parser.load()

        made: Parser = create("parsers", use, field)
        return self._shared.loaded(made, load)

    def _sentences(self, parser: Parser, label: str) -> list[tuple[str, ...]]:
        """[B] phrases of each sample's prompt, and a note of what they are."""
        prompts = prompts_of(self.config)
        try:
            phrases = {prompt: checks.parse(parser, prompt).sentences() for prompt in dict.fromkeys(prompts)}
        except ParseError as error:
            raise ParseError(f'"{label}" cannot judge the phrases of a prompt: {error}', error.reason) from error
        by = f'the {"oracle " if parser.oracle else ""}parser "{parser.name}"'
        for prompt, own in phrases.items():
            self.notes.append(f'"{label}", "{shortened(prompt, SHORT)}": its phrases, by {by}: {"; ".join(own)}')
        return [phrases[prompt] for prompt in prompts]

    def _texts(self, template: str) -> tuple[list[str], tuple[int, ...]]:
        """The distinct texts that a prompt template gives, and [B] the text of each sample."""
        asked = [template.replace(PROMPT, prompt) for prompt, _ in self.config.samples]
        texts = list(dict.fromkeys(asked))
        return texts, tuple(texts.index(text) for text in asked)

    def _read(self, reader: Referee | Prior | PromptedCanvas, texts: Sequence[str], label: str) -> Conditioning:
        """The texts as a plugin reads them, on the run's device; what it truncates becomes a warning."""
        with resident(reader):
            conditioning = checks.read(reader, texts, label)
        for prompt, truncated in zip(conditioning.prompts, conditioning.truncated, strict=False):
            if truncated:
                cut = shortened(truncated, LONGEST_CUT)
                message = f'"{label}" does not read the end of the prompt "{shortened(prompt, SHORT)}": "{cut}" is cut'
                if self.config.strict:
                    raise RefcoreError(f"{message}; shorten the prompt, or run without strict")
                self.warnings.append(message)
        for prompt, note in zip(conditioning.prompts, conditioning.notes, strict=False):
            if note:
                self.notes.append(f'"{label}", "{shortened(prompt, SHORT)}": {note}')
        return conditioning.to(self.device)

    def _store(self, plugin: Plugin, term: BaseTerm) -> None:
        """Brings the weights of a loaded plugin into the form and to the place that the config asks for."""
        weights, place = self._storage(term)
        if weights == "int8" and not (isinstance(plugin, Prior) and plugin.learns):
            store_in_int8(plugin)
        if place is not None:
            offload(plugin, self._device(term))

    def _storage(self, term: BaseTerm) -> tuple[str | None, str | None]:
        """`weights` and `offload` of a term."""
        return (None if term.weights == "off" else term.weights or self.config.weights), self.config.offload

    def _device(self, term: BaseTerm) -> torch.device:
        return self.device if term.device is None else pick_device(term.device)

    def _dtype(self, term: Any) -> torch.dtype:
        return dtype_of(term.dtype or self.config.dtype)

    def _autocast(self, term: Any) -> torch.dtype | None:
        return dtype_of(self.config.autocast if term.autocast is None else term.autocast)


def create(kind: registry.Kind, use: PluginUse, field: str) -> Any:
    """A new plugin of a use, not loaded; errors of its constructor name it."""
    what = f'{SINGULAR[kind]} "{use.name}" in {field}'
    return checks.created(lambda: registry.create(kind, use.name, use.config, field), what)

"""Loading: plugins made once and loaded, prompts read, and panels and priors of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from refcore import registry
from refcore.calibration import Calibration
from refcore.config.panel import Labelled, PanelConfig
from refcore.config.schedule import values
from refcore.config.terms import PROMPT, PluginUse, PriorTerm, RefereeTerm, Witness
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import Parser, load_parser
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine.panel import LoadedReferee, LoadedTerm, Panel
from refcore.engine.precision import dtype_of
from refcore.engine.step import LoadedPrior
from refcore.engine.views import Group
from refcore.errors import ParseError, RefcoreError

SHORT = 60
"""Characters of a prompt in a message."""


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


def load_panel(config: PanelConfig) -> Panel:
    """The referees and witnesses of a config, loaded, with the prompts read and the chunks planned.

    Raises:
        RefcoreError: as `refcore.engine.build.build`, as far as referees are concerned.
    """
    panel = Loader(config).panel()
    panel.plan()
    panel.finish_reading()
    return panel


class Loader:
    """Loads plugins for the samples of a config. Equal uses of a referee are one, loaded once."""

    def __init__(self, config: PanelConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._referees: dict[tuple[Any, ...], Referee] = {}

    def panel(self) -> Panel:
        """The panel of the config; its chunks are not planned yet."""
        groups = {
            name: Group(
                name,
                group,
                [
                    registry.create("augmentations", use.name, use.config, f"views.{name}.augment.{i}")
                    for i, use in enumerate(group.augment)
                ],
            )
            for name, group in self.config.view_groups.items()
        }
        referees = [self._term(labelled) for labelled in self.config.referees]
        witnesses = [self._witness(labelled) for labelled in self.config.witnesses]
        return Panel(self.config, referees, witnesses, groups, self.device, self.warnings, self.notes)

    def prior(self, prior: Prior, term: PriorTerm, label: str, canvas: Canvas, tracks: int) -> LoadedPrior:
        """A prior, loaded, accepted by the canvas, with its prompts read.

        Args:
            prior: not loaded yet.
            term: of the config.
            label: of the term.
            canvas: loaded.
            tracks: of all samples together.

        Raises:
            RefcoreError: a missing checkpoint, a canvas that it cannot work on, with `strict` a prompt too long for it.
        """
        prior.load(self.device, self._dtype(term))
        prior.accept(canvas)
        if prior.couples_samples and tracks > 1:
            self.notes.append(
                f'"{label}" couples samples: what becomes of an image depends on which others are made with it'
            )
        texts, index = self._texts(term.prompt)
        conditioning = self._read(prior, texts, label).take(index)
        return LoadedPrior(
            label=label, term=term, prior=prior, conditioning=conditioning, autocast=self._autocast(term)
        )

    def _term(self, labelled: Labelled[RefereeTerm]) -> LoadedTerm:
        """A referee that images are optimised for."""
        term, label, field = labelled.term, labelled.label, labelled.field
        parser: Parser | None = None
        if term.phrases is not None:
            use = term.phrases.parser
            parser = load_parser(use.name, use.config, f"{field}.phrases.parser")
        referee = self._referee(term, field)
        lowest = min(values(term.weight, self.config.steps, term.window), default=0.0)
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
            conditioning=self._read(referee, texts, label),
            prompt_index=index,
            autocast=self._autocast(term),
            term=term,
            satisfied_at=thresholds(term, referee.config, prompts_of(self.config), field),
            phrases=phrases,
        )

    def _witness(self, labelled: Labelled[Witness]) -> LoadedReferee:
        """A referee that only scores."""
        term = labelled.term
        referee = self._referee(term, labelled.field)
        texts, index = self._texts(term.prompt)
        conditioning = self._read(referee, texts, labelled.label)
        return LoadedReferee(labelled.label, referee, conditioning, index, self._autocast(term), term.coarse)

    def _referee(self, use: PluginUse, field: str) -> Referee:
        """The loaded referee of a use; equal uses are one."""
        made: Referee = registry.create("referees", use.name, use.config, field)
        key = (use.name, made.config.model_dump_json(), getattr(use, "dtype", None))
        if key not in self._referees:
            made.load(self.device, self._dtype(use))
            self._referees[key] = made
        return self._referees[key]

    def _sentences(self, parser: Parser, label: str) -> list[tuple[str, ...]]:
        """[B] phrases of each sample's prompt, and a note of what they are."""
        prompts = prompts_of(self.config)
        try:
            phrases = {prompt: parser.parse(prompt).sentences() for prompt in dict.fromkeys(prompts)}
        except ParseError as error:
            raise ParseError(f'"{label}" cannot judge the phrases of a prompt: {error}', error.reason) from error
        by = f'the {"oracle " if parser.oracle else ""}parser "{parser.name}"'
        for prompt, own in phrases.items():
            self.notes.append(f'"{label}", "{_short(prompt)}": its phrases, by {by}: {"; ".join(own)}')
        return [phrases[prompt] for prompt in prompts]

    def _texts(self, template: str) -> tuple[list[str], tuple[int, ...]]:
        """The distinct texts that a prompt template gives, and [B] the text of each sample."""
        asked = [template.replace(PROMPT, prompt) for prompt, _ in self.config.samples]
        texts = list(dict.fromkeys(asked))
        return texts, tuple(texts.index(text) for text in asked)

    def _read(self, reader: Referee | Prior, texts: Sequence[str], label: str) -> Conditioning:
        """The texts as a plugin reads them, on the device; what it truncates becomes a warning."""
        conditioning = reader.read(texts)
        for prompt, truncated in zip(conditioning.prompts, conditioning.truncated, strict=False):
            if truncated:
                message = f'"{label}" does not read the end of the prompt "{_short(prompt)}": "{truncated}" is cut'
                if self.config.strict:
                    raise RefcoreError(f"{message}; shorten the prompt, or run without strict")
                self.warnings.append(message)
        for prompt, note in zip(conditioning.prompts, conditioning.notes, strict=False):
            if note:
                self.notes.append(f'"{label}", "{_short(prompt)}": {note}')
        return conditioning.to(self.device)

    def _dtype(self, term: Any) -> torch.dtype:
        return dtype_of(term.dtype or self.config.dtype)

    def _autocast(self, term: Any) -> torch.dtype | None:
        return dtype_of(self.config.autocast if term.autocast is None else term.autocast)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."

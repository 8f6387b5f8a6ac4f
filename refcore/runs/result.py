"""Result of a run: images with scores and verdicts, its history, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from refcore import images as files
from refcore.config.run import RunConfig
from refcore.contracts.judge import Judge, Verdict
from refcore.engine.inversion import Inversion
from refcore.engine.step import Engine


@dataclass(frozen=True)
class Sample:
    """One image of a result: its prompt and seed, scores and verdict."""

    prompt: str
    seed: int
    scores: dict[str, float]
    """Label -> score by each referee and witness, in its natural unit."""
    candidate: int = 0
    """Number of the sample's candidate that was kept; 0 where there is one."""
    notes: tuple[str, ...] = ()
    """Remarks on how referees and priors understood the prompt, and the part of it that they do not read."""
    verdict: Verdict | None = None
    """The judge's, where the run's checkpoints belong to a world with one and it reads the prompt."""


@dataclass(frozen=True)
class Result:
    """Images of a run with all that belongs to them. `images[i]` is that of `samples[i]`, prompts outermost."""

    images: Tensor
    """[B, 3, H, W] float32 in [0, 1], on the CPU."""
    samples: tuple[Sample, ...]
    config: RunConfig
    """All that the run depended on, the plugins' defaults included."""
    history: list[dict[str, Any]] = field(repr=False)
    """One record a step: losses and gradient norms by term, one number a track."""
    warnings: tuple[str, ...] = ()
    """Prompt text truncated by a model's context limit."""
    notes: tuple[str, ...] = ()
    """Remarks on how referees understood the prompts, where that is not plain."""
    steps: int = 0
    """Steps done."""
    error: BaseException | None = None
    """Exception that ended the run early; None where it went to its end."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by what took them: load, start, steps, finish."""
    panel: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """referees and witnesses (labels), unwanted (labels whose score should be low), units, device, chunks, halved."""

    @property
    def stopped(self) -> str | None:
        """Reason for an early end, in words; None where the run went to its end."""
        if self.error is None:
            return None
        return "interrupted" if isinstance(self.error, KeyboardInterrupt) else str(self.error) or _name(self.error)

    def to_dict(self, names: Sequence[str], versions: Mapping[str, str]) -> dict[str, Any]:
        """The contents of `result.json`.

        Args:
            names: [B] file names of the images.
            versions: of the libraries.
        """
        return {
            "samples": [self._sample(sample, name) for sample, name in zip(self.samples, names, strict=True)],
            "finished": self.error is None,
            "stopped": self.stopped,
            "steps": self.steps,
            **{name: self.panel[name] for name in ("units", "unwanted", "device", "chunks", "halved")},
            "timings": dict(self.timings),
            "versions": dict(versions),
        }

    def _sample(self, sample: Sample, name: str) -> dict[str, Any]:
        return {
            "prompt": sample.prompt,
            "seed": sample.seed,
            "candidate": sample.candidate,
            "image": name,
            "scores": {label: sample.scores[label] for label in self.panel["referees"]},
            "witnesses": {label: sample.scores[label] for label in self.panel["witnesses"]},
            "notes": list(sample.notes),
            **(sample.verdict.to_dict() if sample.verdict is not None else {}),
        }


def collect(
    inversion: Inversion,
    judge: Judge | None,
    history: list[dict[str, Any]],
    error: BaseException | None,
    timings: Mapping[str, float],
) -> Result:
    """The result of an inversion, as far as it came: decoded, scored and judged.

    Args:
        inversion: that no step follows, or that was stopped.
        judge: of the world that the run's checkpoints come from; None where there is none.
        history: records of the steps.
        error: what ended it early.
        timings: seconds by what took them, so far.
    """
    pixels, panel = inversion.images(), inversion.engine.panel
    scores = {label: values.tolist() for label, values in inversion.scores(pixels).items()}
    samples = tuple(
        Sample(
            prompt,
            seed,
            {label: values[b] for label, values in scores.items()},
            candidate,
            _notes(inversion.engine, b),
            judge.judge(files.levels(pixels[b]), prompt) if judge is not None and judge.reads(prompt) else None,
        )
        for b, ((prompt, seed), candidate) in enumerate(zip(inversion.samples, inversion.leaders(), strict=True))
    )
    facts = {
        "referees": [loaded.label for loaded in panel.referees],
        "witnesses": [loaded.label for loaded in panel.witnesses],
        "unwanted": [loaded.label for loaded in panel.referees if not loaded.term.wanted],
        "units": panel.units,
        "device": str(inversion.engine.device),
        "chunks": dict(panel.chunks),
        "halved": list(panel.halved),
    }
    return Result(
        pixels.float().cpu(),
        samples,
        inversion.recorded,
        history,
        inversion.warnings,
        inversion.notes,
        inversion.step,
        error,
        timings,
        facts,
    )


def _notes(engine: Engine, b: int) -> tuple[str, ...]:
    """Remarks on how each referee and prior understood sample b's prompt, and the text that was truncated."""
    judges = (*engine.panel.referees, *engine.panel.witnesses)
    read = [(loaded.label, loaded.conditioning, loaded.prompt_index[b]) for loaded in judges]
    read += [(loaded.label, loaded.conditioning, b) for loaded in engine.priors]
    notes = []
    for label, conditioning, row in read:
        if conditioning.notes and (note := conditioning.notes[row]):
            notes.append(f"{label}: {note}")
        if conditioning.truncated and (truncated := conditioning.truncated[row]):
            notes.append(f'{label} does not read "{truncated}"')
    return tuple(dict.fromkeys(notes))


def _name(error: BaseException) -> str:
    return type(error).__name__

"""Result of a run: images with scores and verdicts, its history, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from PIL import Image
from torch import Tensor

from refcore import images as files
from refcore import show
from refcore.config.run import RunConfig
from refcore.config.terms import UNWANTED
from refcore.contracts.judge import Judge, Verdict
from refcore.engine.checks import Call
from refcore.engine.inversion import Inversion
from refcore.engine.step import Engine
from refcore.errors import RefcoreError
from refcore.runs.facts import Resumed
from refcore.runs.rundir import RunDir, beside_name


@dataclass(frozen=True)
class Sample:
    """One image of a result: its prompt and seed, scores and verdict."""

    prompt: str
    seed: int
    scores: dict[str, float]
    """Label -> score by each referee and witness, in its natural unit; NaN (null in JSON) where it failed."""
    pixels: Tensor = field(repr=False, compare=False)
    """[3, H, W] float32 in [0, 1], on the CPU."""
    candidate: int = 0
    """Number of the sample's candidate that was kept; 0 where there is one."""
    notes: tuple[str, ...] = ()
    """Remarks on how referees and priors understood the prompt, the part of it that they do not read, and the reason
    of a score or verdict that is missing."""
    verdict: Verdict | None = None
    """The judge's, where the run's checkpoints belong to a world with one and it reads the prompt."""
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """What the canvas has written beside the image, ending -> text: ".svg" by `strokes`."""

    @property
    def image(self) -> Image.Image:
        """The picture, as `image_N.png` holds it."""
        return Image.fromarray(files.levels(self.pixels))

    def _repr_png_(self) -> bytes:
        return files.png(files.levels(self.pixels))

    def _repr_html_(self) -> str:
        scores = ", ".join(f"{label} {value:.3f}" for label, value in self.scores.items())
        caption = [self.prompt, f"seed {self.seed}", scores, verdict_text(self)]
        return show.figure(self.image, [line for line in caption if line])


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """Images of a run with all that belongs to them: a sequence of samples, which prints as a table.

    `images[i]` is that of `samples[i]`, prompts outermost.

    Example:
        >>> result = refcore.invert(["a red circle", "a blue square"])     # doctest: +SKIP
        >>> print(result)                                                 # doctest: +SKIP
        >>> result[0].image.show()                                        # doctest: +SKIP
    """

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
    checkpoints: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name -> digest of every embedded or local checkpoint."""
    resumed: tuple[Resumed, ...] = ()
    """The times that it was gone on with, by `refcore.resume` or `--resume`."""
    panel: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """referees and witnesses (labels), unwanted (labels whose score should be low), units, device, chunks, halved."""

    @property
    def stopped(self) -> str | None:
        """Reason for an early end, in words; None where the run went to its end."""
        if self.error is None:
            return None
        return "interrupted" if isinstance(self.error, KeyboardInterrupt) else str(self.error) or _name(self.error)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...

    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    def __repr__(self) -> str:
        return "\n".join([show.text(*self.table()), *self._remarks()])

    def _repr_html_(self) -> str:
        header, rows = self.table()
        return show.html(header, rows, [sample.image for sample in self.samples[: show.ROWS]], self._remarks())

    @property
    def beside(self) -> list[Mapping[str, str]]:
        """[B] the `files` of each sample."""
        return [sample.files for sample in self.samples]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(header, one row a sample): prompt, seed, score by each referee and witness, and the verdict if any has one.

        Scores have three digits, and are blank where a sample lacks one. Those that should be low are marked.
        """
        labels = list(dict.fromkeys(label for sample in self.samples for label in sample.scores))
        judged = any(sample.verdict is not None for sample in self.samples)
        rows = []
        for sample in self.samples:
            scores = [f"{sample.scores[label]:.3f}" if label in sample.scores else "" for label in labels]
            rows.append([sample.prompt, str(sample.seed), *scores, *([verdict_text(sample)] if judged else [])])
        unwanted = self.panel.get("unwanted", ())
        heads = [f"{label} ({UNWANTED})" if label in unwanted else label for label in labels]
        return ["prompt", "seed", *heads, *(["verdict"] if judged else [])], rows

    @property
    def progress(self) -> str:
        """The steps taken in words: "60 of 120 steps"; with several tries "240 steps, up to 120 a try"."""
        if self.config.candidates.tries > 1:
            return f"{self.steps} steps, up to {self.config.steps} a try"
        return f"{self.steps} of {self.config.steps} steps"

    def save(self, folder: str | Path) -> Path:
        """Writes the images, `config.yaml`, `history.jsonl` and `result.json`, as `invert(..., out=folder)` does.

        Nothing was recorded for a report; `refcore report` makes one of what there is.

        Args:
            folder: made where there is none.

        Returns:
            The folder.

        Raises:
            RefcoreError: the folder holds another run, or cannot be written to.
        """
        run = RunDir.claim(folder)
        run.write_config(self.config)
        for record in self.history:
            run.append_history(record)
        run.finish(self)
        return run.path

    def _remarks(self) -> list[str]:
        """What a reader of the table should know besides."""
        return [f"stopped after {self.progress}: {self.stopped}" if self.error is not None else self.progress]

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
            "resumed": [each._asdict() for each in self.resumed],
            **{name: self.panel[name] for name in ("units", "unwanted", "device", "chunks", "halved")},
            "checkpoints": dict(self.checkpoints),
            "timings": dict(self.timings),
            "versions": dict(versions),
        }

    def _sample(self, sample: Sample, name: str) -> dict[str, Any]:
        return {
            "prompt": sample.prompt,
            "seed": sample.seed,
            "candidate": sample.candidate,
            "image": name,
            **({"files": [beside_name(name, ending) for ending in sample.files]} if sample.files else {}),
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
    resumed: tuple[Resumed, ...] = (),
) -> Result:
    """The result of an inversion, as far as it came: decoded, scored and judged.

    Args:
        inversion: that no step follows, or that was stopped.
        judge: of the world that the run's checkpoints come from; None where there is none.
        history: records of the steps.
        error: what ended it early.
        timings: seconds by what took them, so far.
        resumed: the times that the run was gone on with.
    """
    decoded, files_of, panel = inversion.images(), inversion.files(), inversion.engine.panel
    scores, reasons = panel.possible_scores(decoded)
    pixels = decoded.float().cpu()
    samples = []
    for b, ((prompt, seed), candidate) in enumerate(zip(inversion.samples, inversion.leaders(), strict=True)):
        verdict, failure = _verdict(judge, decoded[b], prompt)
        notes = list(_notes(inversion.engine, b))
        notes += [f"no score: {failed[b]}" for failed in reasons.values() if b in failed]
        notes += [f"no verdict: {failure}"] if failure else []
        own = {label: values[b] for label, values in scores.items()}
        samples.append(Sample(prompt, seed, own, pixels[b], candidate, tuple(notes), verdict, files_of[b]))
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
        pixels,
        tuple(samples),
        inversion.recorded,
        history,
        inversion.warnings,
        inversion.notes,
        inversion.step,
        error,
        timings,
        inversion.checkpoints,
        resumed,
        facts,
    )


def _verdict(judge: Judge | None, pixels: Tensor, prompt: str) -> tuple[Verdict | None, str]:
    """The judge's verdict on [3, H, W], None where there is none, and the reason of a failure."""
    if judge is None:
        return None, ""
    try:
        with Call(judge, "judge") as call:
            verdict: Any = judge.judge(files.levels(pixels), prompt) if judge.reads(prompt) else None
            if not isinstance(verdict, Verdict | None):
                raise call.refuse(f"returned a value of type {type(verdict).__name__}; expected a Verdict")
    except RefcoreError as error:
        return None, " ".join(str(error).split())
    return verdict, ""


def verdict_text(sample: Sample) -> str:
    """A sample's verdict as a word; "" where there is none."""
    return "" if sample.verdict is None else "yes" if sample.verdict.verdict else "no"


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

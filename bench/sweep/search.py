"""A sweep whose points are proposed by Optuna, each from what came of those before; unpromising ones stop early.

The study lies in the results folder as `study.journal`, Optuna's log of operations: text that is only appended to, so
a killed sweep loses at most its last line, no database has to be there, and it also works on network file systems, on
which SQLite's locks do not. One process writes it, the sweep's own; workers are told what they need to know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from refcore.engine.models import Models
from refcore.errors import RefcoreError, described
from refcore.runs import rundir
from refcore_bench import running
from refcore_bench.executors.job import Job, Outcome
from refcore_bench.extras import need
from refcore_bench.running import Batch
from refcore_bench.scorers import digest
from refcore_bench.storing import contact_sheets
from refcore_bench.storing.results import Results
from refcore_bench.storing.storage import Folder
from refcore_bench.sweep import losses
from refcore_bench.sweep.axes import Axis, Point, Values, ends, text_of
from refcore_bench.sweep.plan import Sweep, Trial, write_summary
from refcore_bench.variants import Variant

JOURNAL = "study.journal"
HASHED = ("config (CONFIG and --set)", "prompts")
"""Parts of a search's definition of which the study knows a hash alone."""
STARTUP = 5
"""Complete trials before the first one may be pruned."""


@dataclass(frozen=True)
class Tried:
    """What a worker tells of a trial."""

    marks: list[float]
    """The loss at every mark, batch after batch, as far as the trial went."""
    pruned: bool


def run(sweep: Sweep, trials: int, seed: int = 0, prune: bool = True) -> list[Trial]:
    """Tries points until `trials` have been tried, and writes the table, the summary and the best config.

    Points are proposed by the tree-structured Parzen estimator (TPE, Bergstra et al. 2011). A trial is pruned where
    even its best loss so far is above the median of the complete trials at this mark (Vizier's rule, Golovin et al.
    2017).

    Args:
        sweep: what varies, on which prompts.
        trials: number of all trials in the folder, those of earlier calls included.
        seed: of the proposals; with one worker the same seed gives the same trials, also after an interruption.
        prune: whether unpromising trials stop early.

    Raises:
        RefcoreError: Optuna is not installed; the folder holds another sweep, or a damaged journal; an end of a range,
            or a listed value, makes no valid config.
    """
    for point in ends(sweep.axes):
        sweep.variant(_name(0), point)  # before a study remembers what cannot be
    search = _Search(sweep, seed, prune)
    with TemporaryDirectory() as folder:
        search.open(Path(folder))
        try:
            search.go_on(trials)
        except KeyboardInterrupt:
            search.end()  # the best so far
            raise
        return search.end()


class _Search:
    """A study and the results folder that it belongs to."""

    def __init__(self, sweep: Sweep, seed: int, prune: bool) -> None:
        self._optuna = need("optuna", "sweep")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._sweep, self._seed, self._prune = sweep, seed, prune
        self._results = Results(sweep.out)
        self._journal = Path()
        self._study: Any = None
        self._variants: dict[int, Variant] = {}

    def open(self, folder: Path) -> None:
        """Opens the folder's study, or begins one; `folder` holds the journal of results that are elsewhere."""
        storage = self._results.storage
        if isinstance(storage, Folder):
            storage.make()
            folder = storage.path
        elif storage.exists(JOURNAL):
            (folder / JOURNAL).write_bytes(storage.read(JOURNAL))
        self._journal = folder / JOURNAL
        if self._journal.exists():
            _mend(self._journal, self._sweep.out)
        journal = need("optuna.storages.journal", "sweep")
        sweep = self._sweep
        try:
            self._study = self._optuna.create_study(
                study_name="sweep",
                storage=self._optuna.storages.JournalStorage(journal.JournalFileBackend(str(self._journal))),
                direction="maximize" if sweep.towards.upwards else "minimize",
                pruner=self._optuna.pruners.NopPruner(),  # workers decide
                load_if_exists=True,
            )
        except Exception as error:  # of many classes, by what the lines say
            raise _damaged(sweep.out, described(error)) from error
        definition = {
            "config (CONFIG and --set)": digest(sweep.settings),
            "--grid or --range": " ".join(map(text_of, sweep.axes)),
            "prompts": digest([one.prompt for one in sweep.prompts]),
            "--seeds": ", ".join(map(str, sweep.seeds)),
            "--batch": sweep.batch,
            "--towards": sweep.towards.name,
            "--search-seed": self._seed,
        }
        before = self._study.user_attrs.get("definition", definition)
        for name, value in definition.items():
            if before.get(name) != value:
                told = "" if name in HASHED else f": {before.get(name)}, now {value}"
                raise RefcoreError(
                    f'"{sweep.out}" holds a search with another {name}{told}; go on with the same command, or choose '
                    "another --out"
                )
        self._study.set_user_attr("definition", definition)

    def go_on(self, trials: int) -> None:
        """Runs the trials that an earlier call has not finished, then new ones."""
        self._claim([])
        jobs: dict[Job, int] = {}
        with closing(self._sweep.executor.run(self._jobs(trials, jobs), running.sight_of(self._results))) as outcomes:
            for job, outcome in outcomes:
                self._tell(jobs.pop(job), outcome)
                self._keep()

    def end(self) -> list[Trial]:
        """Writes what is known; the trials in the order of their numbers."""
        if self._results.has_pictures:
            self._results.gather()
            contact_sheets.write_sheets(self._results)
        found = [
            Trial(
                _name(trial.number),
                self._point(trial.params),
                {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "unfinished"}.get(trial.state.name, "failed"),
                trial.value if trial.state.name == "COMPLETE" else None,
                [loss for _, loss in sorted(trial.intermediate_values.items())],
            )
            for trial in self._begun()
        ]
        write_summary(self._results, self._sweep, found, self._sweep.variant)
        return found

    def _jobs(self, trials: int, jobs: dict[Job, int]) -> Iterator[Job]:
        """A job for each trial, made when a worker is free for it: by then more is known."""
        left = [(trial.number, self._point(trial.params)) for trial in self._begun() if not trial.state.is_finished()]
        while left or len(self._begun()) < trials:
            number, point = left.pop(0) if left else self._ask()
            try:
                variant = self._sweep.variant(_name(number), point)
            except RefcoreError as error:  # values that are valid alone, but not together
                self._sweep.progress(f"{_name(number)} failed: {error}")
                self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
                self._keep()
                continue
            self._claim([variant])
            self._variants[number] = variant
            arguments = (self._results.place, self._results.task.name, self._batches(variant), self._complete())
            job = Job(f"trial {number}", try_variant, arguments, running.models_of(variant))
            jobs[job] = number
            yield job

    def _begun(self) -> list[Any]:
        """The trials that have been asked for; others may be enqueued."""
        return [trial for trial in self._study.trials if trial.state.name != "WAITING"]

    def _ask(self) -> tuple[int, Point]:
        number = len(self._begun())
        # A sampler that has drawn nothing yet, for each trial: what it proposes depends on no interruption before it.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(digest([self._seed, number])[:8], 16))
        trial = self._study.ask({axis.field: self._distribution(axis) for axis in self._sweep.axes})
        self._keep()
        return trial.number, self._point(trial.params)

    def _distribution(self, axis: Axis) -> Any:
        kinds = self._optuna.distributions
        if isinstance(axis, Values):
            return kinds.CategoricalDistribution(axis.values)
        if axis.whole:
            return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)

    def _point(self, params: dict[str, Any]) -> Point:
        """Parameters as YAML texts, which give back the same numbers."""
        return {axis.field: str(params[axis.field]) for axis in self._sweep.axes}

    def _claim(self, chosen: Sequence[Variant]) -> None:
        sweep = self._sweep
        self._results.claim(chosen, sweep.source, sweep.prompts, sweep.task)
        running.prepare(self._results, chosen, sweep.progress)

    def _batches(self, variant: Variant) -> tuple[Batch, ...]:
        """All batches of a trial, in the order in which they are made."""
        prompts, size = self._sweep.prompts, self._sweep.batch
        return tuple(
            Batch(variant, tuple(prompts[first : first + size]), seed)
            for seed in self._sweep.seeds
            for first in range(0, len(prompts), size)
        )

    def _complete(self) -> list[dict[int, float]] | None:
        """The losses of the complete trials by mark; None where no trial is pruned."""
        if not self._prune:
            return None
        return [trial.intermediate_values for trial in self._study.trials if trial.state.name == "COMPLETE"]

    def _tell(self, number: int, outcome: Outcome) -> None:
        """Records what came of a trial."""
        sweep, states = self._sweep, self._optuna.trial.TrialState
        name, variant = _name(number), self._variants.pop(number)
        if outcome.error is not None:
            if not isinstance(outcome.error, RefcoreError):
                raise outcome.error
            sweep.progress(f"{name} failed: {outcome.error}")
            self._results.drop(variant)
            self._study.tell(number, state=states.FAIL)
            return
        tried: Tried = outcome.value
        before = self._study.trials[number]
        trial = self._optuna.trial.Trial(self._study, before._trial_id)
        for mark, loss in enumerate(tried.marks):
            if mark not in before.intermediate_values:  # of a sweep that was killed while it told
                trial.report(loss, mark)
        if tried.pruned:
            marks = len(self._batches(variant)) * losses.MARKS
            sweep.progress(f"{name} is pruned after {len(tried.marks)} of {marks} marks, loss {tried.marks[-1]:.4g}")
            self._results.drop(variant)  # some prompts alone would not be comparable
            self._study.tell(number, state=states.PRUNED)
            return
        value = sweep.towards.value(self._results, variant)
        self._study.tell(number, value)
        sweep.progress(f"{name}: {sweep.towards.title} {value:.4g}, the best is {self._study.best_value:.4g}")

    def _keep(self) -> None:
        """Copies the journal to where the results are."""
        storage = self._results.storage
        if not isinstance(storage, Folder):
            storage.write(JOURNAL, self._journal.read_bytes())


def try_variant(
    models: Models, place: str, task: str, batches: Sequence[Batch], complete: list[dict[int, float]] | None
) -> Tried:
    """Makes the batches of a trial that are not there, until one is made or the trial is pruned. Done by a worker."""
    results, told = Results(place), _Told(complete)
    done = set(results.rows_of(batches[0].variant).select("split", "prompt", "seed").iter_rows())
    for batch in batches:
        if all((one.split, one.prompt, batch.seed) in done for one in batch.prompts):
            told.again(losses.read(results, batch).marks)
            continue
        watching = losses.Losses(told)

        def write(watching: losses.Losses = watching, batch: Batch = batch) -> None:
            losses.write(results, batch, watching.of(len(batch.prompts)))

        try:
            running.make_batch(models, place, task, batch, None, [watching], write)
        except losses.Pruned:
            return Tried(told.marks, True)
    return Tried(told.marks, False)


class _Told:
    """Takes the losses of a trial, and raises `Pruned` where Optuna's median rule says so."""

    def __init__(self, complete: list[dict[int, float]] | None) -> None:
        self.marks: list[float] = []
        self._trial: Any = None
        if complete is None:
            return
        optuna = need("optuna", "sweep")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP))
        for values in complete:
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=values))
        self._trial = study.ask()

    def __call__(self, mark: int, loss: float) -> None:
        self.again([loss])
        if self._trial is not None and self._trial.should_prune():
            raise losses.Pruned

    def again(self, marks: Sequence[float]) -> None:
        """Takes losses at which the trial was not pruned."""
        for loss in marks:
            self.marks.append(loss)
            if self._trial is not None:
                self._trial.report(loss, len(self.marks) - 1)


def _mend(journal: Path, out: str) -> None:
    """Cuts off a last line that is not whole: what is appended to it would be lost with it, and all after it.

    Raises:
        RefcoreError: another line is none of a journal.
    """
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            known = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            known = False
        if not known:
            raise _damaged(out, f"line {number} is no operation of a study")
    if whole != data:
        rundir.write(journal, whole)


def _damaged(out: str, why: str) -> RefcoreError:
    return RefcoreError(
        f'{JOURNAL} of "{out}" is damaged: {why}; restore it from a copy, or choose another --out for a new search'
    )


def _name(number: int) -> str:
    return f"trial-{number:04d}"

"""What a sweep is after: the judge's verdict, a witness's score, or the referees' own loss."""

from __future__ import annotations

from dataclasses import dataclass

from refcore.errors import RefcoreError, unknown
from refcore_bench.storing.results import Results
from refcore_bench.sweep import losses
from refcore_bench.task import Task
from refcore_bench.variants import Variant

LOSS, VERDICT = "loss", "verdict"


@dataclass(frozen=True)
class Towards:
    """A number for each variant."""

    name: str
    """loss, verdict, or the label of a witness of the panel."""

    @property
    def upwards(self) -> bool:
        """Whether more is better."""
        return self.name != LOSS

    @property
    def title(self) -> str:
        if self.name == VERDICT:
            return "accepted by the judge"
        return "mean loss" if self.name == LOSS else f"mean score by {self.name}"

    def value(self, results: Results, variant: Variant) -> float:
        """The number of a variant whose images are all made.

        Raises:
            RefcoreError: it has no images; the witness did not score them.
        """
        if self.name == LOSS:
            found = losses.read_all(results, variant.name)
            if not found:
                raise RefcoreError(f'"{results.storage}" holds no losses of "{variant.name}"; choose another --out')
            return losses.mean(found)
        rows = results.rows_of(variant)
        if self.name == VERDICT:
            values = [float(verdict) for verdict in rows["verdict"].to_list() if verdict is not None]
        else:
            wanted = results.panel().get(self.name)
            values = [
                score["score"]
                for scores in rows["scores"].to_list()
                for score in scores
                if (score["identity"] == wanted if wanted else score["referee"] == self.name)
            ]
        if not values:
            raise RefcoreError(f'"{results.storage}" holds no images of "{variant.name}" with a {self.name}')
        return sum(values) / len(values)


def towards(name: str | None, task: Task) -> Towards:
    """What `--towards` names; by default the judge's verdict where there is a judge, and the loss elsewhere.

    Raises:
        RefcoreError: the task has nobody of this name.
    """
    known = [*([VERDICT] if task.wording.judge is not None else []), LOSS, *(term["label"] for term in task.panel())]
    if name is None:
        return Towards(known[0])
    if name not in known:
        raise unknown("scorer", name, known, "--towards")
    return Towards(name)

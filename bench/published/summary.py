"""What a published benchmark's table says of a variant: the mean of each group, and of all as it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refcore_bench.published.measurements import Measurements
from refcore_bench.published.task import PublishedTask
from refcore_bench.statistics.intervals import NOTHING, Estimate, mean_of_means
from refcore_bench.statistics.pairing import Pair, difference, image_of, over_prompts, prompt_means, prompt_of
from refcore_bench.storing.results import KEY, Results
from refcore_bench.task import Row

OVERALL = "overall"


class Measured:
    """The measurements of a results folder, by image."""

    def __init__(self, results: Results) -> None:
        assert isinstance(results.task, PublishedTask), "only published benchmarks have metrics"
        self.task: PublishedTask = results.task
        own = Measurements(results.place)
        self.metrics = own.metrics()
        self.further = [label for label in self.metrics if label not in self.task.metrics]
        """Labels of metrics that are not of the benchmark, each a column of its own."""
        self._facts = {prompt_of(row): row.get("facts", {}) for row in results.prompts()}
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {
            (*[row[column] for column in KEY], row["metric"]): row for row in own.rows().iter_rows(named=True)
        }

    def groups(self, rows: Sequence[Row]) -> list[str]:
        """The columns in which any of these images counts."""
        there = {group for row in rows for group in self._groups_of(row)}
        return [group for group in (*self.task.groups(), *self.further) if group in there]

    def missing(self, rows: Sequence[Row]) -> int:
        """Number of these images that some metric has not measured."""
        return sum(any(self._value(row, label) is None for label in self._labels(row)) for row in rows)

    def of(self, row: Row) -> list[dict[str, Any]]:
        """`{"metric", "value", "parts": [{"name", "value"}]}` of an image, by every metric that has measured it."""
        every = (self._rows.get((row["variant"], *image_of(row), label)) for label in self.metrics)
        return [{field: found[field] for field in ("metric", "value", "parts")} for found in every if found is not None]

    def means(self, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
        """Group, or "overall" -> mean of its images over prompts, with its interval."""
        found = {group: over_prompts(self._of(rows, group), self._by(group)).to_dict() for group in self.groups(rows)}
        return found | ({OVERALL: self._overall(rows).to_dict()} if self.task.overall else {})

    def differences(self, pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
        """Group -> mean difference within the pairs that its metric has measured, with its interval over prompts."""
        found = {}
        for group in self.groups([ours for ours, _ in pairs]):
            if both := [pair for pair in pairs if all(self._counts(row, group) for row in pair)]:
                found[group] = difference(both, self._by(group)).to_dict()
        return found

    def _overall(self, rows: Sequence[Row]) -> Estimate:
        if self.task.overall == "images":
            label = next(iter(self.task.metrics))
            own = [row for row in rows if self._value(row, label) is not None]
            return over_prompts(own, self._reader(label)) if own else NOTHING
        return mean_of_means(
            [
                prompt_means(self._of(rows, group), self._by(group))
                for group in self.groups(rows)
                if group not in self.further
            ]
        )

    def _of(self, rows: Sequence[Row], group: str) -> list[Row]:
        """The images of a group that its metric has measured."""
        return [row for row in rows if self._counts(row, group)]

    def _counts(self, row: Row, group: str) -> bool:
        return group in self._groups_of(row) and self._value(row, self._metric_of(group)) is not None

    def _by(self, group: str) -> Callable[[Row], float]:
        return self._reader(self._metric_of(group))

    def _reader(self, label: str) -> Callable[[Row], float]:
        def value(row: Row) -> float:
            found = self._value(row, label)
            assert found is not None, "unmeasured images are left out"
            return found

        return value

    def _value(self, row: Row, label: str) -> float | None:
        found = self._rows.get((row["variant"], *image_of(row), label))
        return None if found is None else float(found["value"])

    def _groups_of(self, row: Row) -> tuple[str, ...]:
        return (*self.task.groups_of(self._prompted(row)), *self.further)

    def _labels(self, row: Row) -> tuple[str, ...]:
        return (*self.task.metrics_of(self._prompted(row)), *self.further)

    def _metric_of(self, group: str) -> str:
        return group if group in self.further else self.task.metric_of(group)

    def _prompted(self, row: Row) -> Mapping[str, Any]:
        return {**row, "facts": self._facts.get(prompt_of(row), {})}

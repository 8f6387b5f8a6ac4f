"""The contract of a judge: what knows the truth about images of a world of its own, and takes part in no run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refcore.plugin import Plugin

if TYPE_CHECKING:
    from refcore.images import Levels


@dataclass(frozen=True)
class Fact:
    """One thing asked for, what was found in its place, and whether they agree."""

    asked: str
    found: str
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Whether an image shows exactly what a prompt asks for, fact by fact."""

    verdict: bool
    facts: Sequence[Fact]

    def to_dict(self) -> dict[str, Any]:
        """`{"verdict": bool, "facts": [{"asked", "found", "ok"}, ...]}`, ready for JSON."""
        return {"verdict": self.verdict, "facts": [fact.to_dict() for fact in self.facts]}


class Judge(Plugin):
    """Says of a finished image whether it shows what its prompt asks for.

    A judge registers under the name of its world, the word before the colon in the checkpoints of that world:
    "playground" for `playground:clip`. Runs on such checkpoints have its verdicts in their results.
    """

    kind = "judges"

    @abstractmethod
    def reads(self, prompt: str) -> bool:
        """Whether it can judge images of this prompt."""

    @abstractmethod
    def judge(self, levels: Levels, prompt: str) -> Verdict:
        """The verdict on an image.

        Args:
            levels: [H, W, 3] uint8, sRGB, as the image is saved.
            prompt: one that it `reads`.

        Raises:
            ParseError: the prompt is not one that it reads.
        """

"""The contract of a judge: a plugin that knows the ground truth about images of its world; never used in a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from refcore.plugin import Kind, Plugin

if TYPE_CHECKING:
    from refcore.images import Levels


@dataclass(frozen=True)
class Fact:
    """One requirement of a prompt, what the image has in its place, and whether they agree."""

    asked: str
    found: str
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Whether an image shows exactly what its prompt asks for, fact by fact."""

    verdict: bool
    facts: Sequence[Fact]

    def to_dict(self) -> dict[str, Any]:
        """`{"verdict": bool, "facts": [{"asked", "found", "ok"}, ...]}`, ready for JSON."""
        return {"verdict": self.verdict, "facts": [fact.to_dict() for fact in self.facts]}


class Judge(Plugin):
    """Decides whether a finished image shows what its prompt asks for.

    A judge is registered under the name of its world, the prefix of that world's checkpoints: "playground" for
    `playground:clip`. The results of runs on such checkpoints contain its verdicts.
    """

    kind: ClassVar[Kind] = "judges"
    usage: ClassVar[str] = "refcore judge IMAGE PROMPT --by NAME"

    @abstractmethod
    def reads(self, prompt: str) -> bool:
        """Whether it understands this prompt, and so can judge its images."""

    @abstractmethod
    def judge(self, levels: Levels, prompt: str) -> Verdict:
        """The verdict on an image.

        Args:
            levels: [H, W, 3] uint8, sRGB, as saved.
            prompt: one for which `reads` is true.

        Raises:
            ParseError: `reads` is false for the prompt.
        """

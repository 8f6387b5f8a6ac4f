"""What the page allows, so that no visitor can fill the machine."""

from __future__ import annotations

from dataclasses import dataclass

from refcore.config.run import RunConfig
from refcore.errors import RefcoreError


@dataclass(frozen=True)
class Limits:
    """Largest run, longest queue and largest upload."""

    waiting: int = 8
    """Runs that wait in the queue."""
    seconds: float = 3600.0
    """Time of a run after its start; then it stops, and what it has made is kept."""
    samples: int = 16
    """Images of a run."""
    side: int = 1024
    """Side of an image in pixels, of runs and of uploads."""
    steps: int = 2000
    """Steps of a run, over all tries."""
    upload_megabytes: int = 10
    """Size of an uploaded file."""
    prompt: int = 1000
    """Characters of a prompt."""

    def check(self, config: RunConfig) -> None:
        """Refuses a config that is too large for the page.

        Raises:
            RefcoreError: naming the field, the value and the limit.
        """
        longest = max((len(prompt) for prompt in config.prompts), default=0)
        found = {
            "the prompt has {} characters": (longest, self.prompt),
            "prompts and seeds give {} images": (len(config.samples), self.samples),
            "steps with all tries are {}": (config.steps * config.candidates.tries, self.steps),
            "candidates.count with all images is {}": (config.candidates.count * len(config.samples), 256),
        }
        if config.image_size is not None:
            found["size is {} px"] = (max(config.image_size), self.side)
        for text, (value, most) in found.items():
            if value > most:
                raise RefcoreError(
                    f"{text.format(value)}; this page takes at most {most}. The command line has no such limit"
                )

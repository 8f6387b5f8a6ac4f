"""The time of `refcore invert` until its first step, and the share of the model libraries.

Run it as `python -m performance.startup FOLDER`, in a process of its own, since imports can be timed only once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

COMMAND = ["invert", "a red circle", "--preset", "playground", "--set", "init=null", "--set", "candidates.count=1",
           "--set", "candidates.keep=[]", "--out"]  # fmt: skip


class _FirstStep(BaseException):
    """Ends the command at its first step."""


class Stopwatch:
    """Processor seconds spent inside the functions it wraps; nested calls count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._depth += 1
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.process_time() - began

        return call


def import_libraries(watch: Stopwatch) -> None:
    """Imports everything that the plugins of this run import, and wraps the functions that load models."""
    # Much of these libraries loads late.
    import diffusers.schedulers  # noqa: F401
    import kornia.enhance
    import kornia.geometry  # noqa: F401
    import open_clip
    from diffusers.models import AutoencoderKL, AutoencoderTiny, ModelMixin, UNet2DConditionModel  # noqa: F401
    from diffusers.models.unets import unet_2d_blocks  # noqa: F401
    from transformers import (
        AutoImageProcessor,
        AutoProcessor,
        AutoTokenizer,
        Blip2ForImageTextRetrieval,  # noqa: F401
        CLIPTextModel,  # noqa: F401
        Owlv2ForObjectDetection,  # noqa: F401
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    open_clip.create_model = watch.timed(open_clip.create_model)
    open_clip.get_tokenizer = watch.timed(open_clip.get_tokenizer)
    loaders: list[Any] = [
        ModelMixin, AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase,
    ]  # fmt: skip
    for cls in loaders:
        cls.from_pretrained = classmethod(watch.timed(cls.from_pretrained.__func__))
    config: Any = PreTrainedConfig
    config.get_config_dict = classmethod(watch.timed(config.get_config_dict.__func__))


def main(out: str) -> dict[str, float]:
    """Processor seconds: `own` of refcore, `libraries` of their imports and loading, and `all` of the process."""
    watch = Stopwatch()
    watch.timed(import_libraries)(watch)
    from refcore.cli import main as refcore  # after the libraries, so that only refcore's own imports are counted
    from refcore.engine.inversion import Inversion

    def first_step(self: Any) -> Any:
        raise _FirstStep

    Inversion.__next__ = first_step  # type: ignore[method-assign]
    with suppress(_FirstStep):
        refcore([*COMMAND, out + "/run"])
    whole = time.process_time()
    return {"own": whole - watch.seconds, "libraries": watch.seconds, "all": whole}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

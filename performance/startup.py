"""One start of `refcore invert`, to its first step: how long it took, and how much of that the model libraries did.

Run by itself, as `python -m performance.startup FOLDER`, since imports can be timed only once.
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
    """Ends the command where its first step would begin."""


def main(out: str) -> dict[str, float]:
    """Processor seconds: `own` of refcore, `libraries` of imports and loading, and `all` of the process."""
    spent = 0.0
    depth = 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal spent, depth
            depth += 1
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                depth -= 1
                if not depth:
                    spent += time.process_time() - began

        return call

    def libraries() -> None:
        # All that the plugins of this run import: much of these libraries loads late.
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

        open_clip.create_model = timed(open_clip.create_model)
        open_clip.get_tokenizer = timed(open_clip.get_tokenizer)
        loaders: list[Any] = [
            ModelMixin, AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase,
        ]  # fmt: skip
        for cls in loaders:
            cls.from_pretrained = classmethod(timed(cls.from_pretrained.__func__))
        config: Any = PreTrainedConfig
        config.get_config_dict = classmethod(timed(config.get_config_dict.__func__))

    timed(libraries)()
    from refcore.cli import main as refcore
    from refcore.engine.inversion import Inversion

    def first_step(self: Any) -> Any:
        raise _FirstStep

    Inversion.__next__ = first_step  # type: ignore[method-assign]
    with suppress(_FirstStep):
        refcore([*COMMAND, out + "/run"])
    whole = time.process_time()
    return {"own": whole - spent, "libraries": spent, "all": whole}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

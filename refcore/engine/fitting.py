"""Runs that are too large for a device: refused before a model is loaded, and named when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from refcore.config.run import RunConfig
from refcore.engine import memory
from refcore.engine.checks import CALL
from refcore.errors import OutOfMemory

A_PIXEL = 48
"""Bytes that a pixel takes at least: three colours in float32 of parameters, image, and a gradient of each."""
A_TRACK = 5_000
"""Bytes that a track takes at least: the state of one random generator."""
A_VIEW = 12
"""Bytes that a view takes at least, before it is made: the image that it shows (int64) and its loss (float32)."""
UNKNOWN = 2**47
"""Bytes that no device has, where it is not known how many are free."""


def refuse_too_large(config: RunConfig, device: torch.device) -> None:
    """Raises OutOfMemory, with the field and what would fit, for what cannot fit into the device's free memory."""
    free = memory.free_memory(device) or UNKNOWN
    samples, count = len(config.samples), config.candidates.count
    image = A_TRACK + A_PIXEL * math.prod(config.image_size or (1, 1))
    if image > free:
        assert config.image_size is not None
        fits = f"at most a side of {_side(free)} px would fit"
        raise _too_large(f"size is {_pixels(config.image_size)}", image, free, device, fits)
    if image * samples * count > free:
        room = max(1, int(memory.SHARE * free) // image)
        need = image * samples * count
        if count > 1 and image * samples <= free:
            fits = f"at most {_number(max(1, room // samples))} would fit"
            raise _too_large(f"candidates.count is {_number(count)}", need, free, device, fits)
        what = f"there are {_number(samples)} samples (prompts x seeds), all in one batch"
        raise _too_large(
            what, image * samples, free, device, f"at most {_number(room)} would fit: give fewer prompts or seeds"
        )
    for name, group in config.views.items():
        need = A_VIEW * group.count * samples * count
        if need > free:
            fits = f"at most {_number(max(1, int(memory.SHARE * free) // (A_VIEW * samples * count)))} would fit"
            raise _too_large(f"views.{name}.count is {_number(group.count)}", need, free, device, fits)


def out_of_memory(
    config: RunConfig, size: tuple[int, int] | None, device: torch.device, error: BaseException
) -> OutOfMemory:
    """The error, to be raised, for one that says that memory is short in a run on images of `size`."""
    samples, count = len(config.samples), config.candidates.count
    where = getattr(error, CALL, "")
    free = memory.free_memory(device)
    left = "" if free is None else f" ({memory_text(free)} are free)"
    fewer = [] if size is None else [f"size is {_pixels(size)}: make it smaller"]
    if count > 1:
        fewer.append(f"candidates.count is {_number(count)}: lower it")
    if samples > 1:
        fewer.append(f"there are {_number(samples)} samples in one batch: give fewer prompts or seeds")
    largest = max(config.views, key=lambda name: config.views[name].count, default=None)
    if largest is not None and config.views[largest].count > 1:
        fewer.append(f"views.{largest}.count is {_number(config.views[largest].count)}: lower it")
    if config.dtype in ("float32", "float64"):
        fewer.append("dtype: bfloat16 halves the models")
    return OutOfMemory(f"out of memory on {device}{left}{f' in {where}' if where else ''}; {'; '.join(fewer)}")


@contextmanager
def named(config: RunConfig, device: torch.device, size: tuple[int, int] | None = None) -> Iterator[None]:
    """A context in which lack of memory is the error of `out_of_memory`."""
    try:
        yield
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        named_error = out_of_memory(config, size or config.image_size, device, error)
    else:
        return
    raise named_error  # past the except clause, whose traceback holds on to the graph


def memory_text(size: int) -> str:
    """Bytes as people write them.

    >>> memory_text(2_400_000_000), memory_text(10**40)
    ('2.4 GB', '1,000,000 GB')
    """
    if size > 10**15:
        return "1,000,000 GB"
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"


def _too_large(what: str, need: int, free: int, device: torch.device, fits: str) -> OutOfMemory:
    has = "" if free == UNKNOWN else f", and {memory_text(free)} are free"
    return OutOfMemory(f"{what}, which takes at least {memory_text(need)} on {device}{has}; {fits}")


def _side(free: int) -> int:
    return max(1, math.isqrt(int(memory.SHARE * free) // A_PIXEL))


def _pixels(size: tuple[int, int]) -> str:
    return f"{_number(size[0])} x {_number(size[1])} px"


def _number(value: int) -> str:
    """A number with at most 19 digits written out."""
    return f"{value:,}" if value < 10**18 else f"about 1e{len(str(value)) - 1}" if value < 10**4000 else "beyond 1e4000"

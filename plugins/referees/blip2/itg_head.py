"""BLIP-2's captioning head (image-grounded text generation, ITG): its file format and its extraction."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import read_pickled, refuse_written, write_safetensors
from refcore_plugins.models.loaded_weights import refuse_left_over, refuse_non_finite
from refcore_plugins.models.untrusted_checkpoints import reason_of

FILE_NAME = "itg_head.safetensors"
"""File of the head, beside the other files of a transformers checkpoint."""
PREFIX = "cls.predictions."
ORIGINAL = "the first-stage file of LAVIS (blip2_pretrained.pth)"
REMEDY = f"refcore convert blip2-itg SOURCE OUT extracts one from {ORIGINAL}"

_TENSORS = (
    "transform.dense.weight",
    "transform.dense.bias",
    "transform.LayerNorm.weight",
    "transform.LayerNorm.bias",
    "decoder.weight",
    "decoder.bias",
)


class ItgHead(nn.Module):
    """BERT's language head: dense, GELU, layer norm, and a linear map to the vocabulary; always float32 or wider.

    The transformers class `Blip2ForImageTextRetrieval` has none. In the file the tensors have the names of the original
    model, `cls.predictions.transform.dense.weight` and so on.
    """

    def __init__(self, width: int, vocabulary: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.transform = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=eps)})
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> logits [..., vocabulary]. Without autocast: 30,000 logits need the precision."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.decoder.weight.dtype)
            logits: Tensor = self.decoder(self.transform["LayerNorm"](F.gelu(self.transform["dense"](hidden))))
        return logits

    @classmethod
    def from_file(cls, path: Path, width: int, vocabulary: int, eps: float = 1e-12) -> ItgHead:
        """The head in a file written by `extract_itg_head` or by the playground's training, in float32.

        Raises:
            CheckpointError: the file is missing, corrupt, incomplete or of a model of another size.
        """
        if not path.is_file():
            raise CheckpointError(f"there is no captioning head at {path}; {REMEDY}")
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"the captioning head {path} is corrupt ({reason_of(error, 200)}); {REMEDY}"
            ) from error
        missing = [PREFIX + name for name in _TENSORS if PREFIX + name not in tensors]
        if missing:
            raise CheckpointError(f"{path} is not a captioning head: it lacks {', '.join(missing)}; {REMEDY}")
        where = f"the captioning head {path}"
        refuse_left_over(tensors.keys() - {PREFIX + name for name in _TENSORS}, where, REMEDY)
        refuse_non_finite(tensors.items(), where, REMEDY)
        shape = tuple(tensors[PREFIX + "decoder.weight"].shape)
        if shape != (vocabulary, width):
            raise CheckpointError(
                f"the captioning head {path} is of another model: its vocabulary and width are {shape}, "
                f"the checkpoint's {(vocabulary, width)}; {REMEDY}"
            )
        head = cls(width, vocabulary, eps)
        try:
            head.load_state_dict({name: tensors[PREFIX + name].float() for name in _TENSORS})
        except RuntimeError as error:
            raise CheckpointError(
                f"the captioning head {path} does not fit together: {reason_of(error, 200)}; {REMEDY}"
            ) from error
        return head


def extract_itg_head(source: str | Path, out: str | Path) -> Path:
    """Extracts the captioning head from the original first-stage file of BLIP-2, as safetensors.

    Args:
        source: The first-stage file of LAVIS, `blip2_pretrained.pth`: `{"model": {"Qformer.cls.predictions...": ...}}`.
        out: The safetensors file, or an existing folder for `itg_head.safetensors`.

    Returns:
        The file written.

    Raises:
        CheckpointError: `source` is missing, corrupt or without that head, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    if out.is_dir():
        out = out / FILE_NAME
    refuse_written(out)
    state = read_pickled(source, ORIGINAL)
    head = {name.removeprefix("Qformer."): value for name, value in state.items() if name.startswith("Qformer.cls.")}
    # The decoder's matrix is that of the word embeddings, and its bias is the head's; a file may name either.
    for name, other in (
        ("decoder.weight", "Qformer.bert.embeddings.word_embeddings.weight"),
        ("decoder.bias", "Qformer.cls.predictions.bias"),
    ):
        if head and other in state:
            head.setdefault(PREFIX + name, state[other])
    missing = [name for name in _TENSORS if PREFIX + name not in head]
    if missing:
        found = sorted({name.split(".")[0] for name in state})[:6]
        raise CheckpointError(
            f"{source} has no captioning head: Qformer.{PREFIX}{missing[0]} is missing; "
            f"it holds {', '.join(found) or 'no tensors'}; expected {ORIGINAL}; second-stage files have no such head"
        )
    return write_safetensors({PREFIX + name: head[PREFIX + name] for name in _TENSORS}, out)

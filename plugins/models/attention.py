"""Fast attention on the CPU, for models whose library chooses a slower implementation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class PlainAttention(nn.Module):
    """Self-attention as two matrix products and a softmax, with the weights of a `MultiheadAttention`.

    On a CPU, at 65 tokens and heads of 32, forward and backward in bfloat16 take 3 ms, where torch's fused kernel takes
    20 ms and its unfused one, which computes in float32 and looks for fully masked rows, 8 ms.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        with torch.device("meta"):
            self.in_proj = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        self.in_proj.weight, self.in_proj.bias = weight, bias
        self.out_proj = attention.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """The same [N, T, W] three times -> [N, T, W] and no weights, as in the original.

        `attn_mask` is [T, T] or [N * heads, T, T], additive, or boolean and true where nothing is attended to.
        """
        n, tokens, width = query.shape
        q, k, v = self.in_proj(query).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        if attn_mask is not None:
            mask = attn_mask.view(n, self.heads, tokens, tokens) if attn_mask.ndim == 3 else attn_mask
            logits = logits.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        return self.out_proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width)), None


def write_out_attention(model: nn.Module) -> None:
    """Replaces the self-attention of open_clip's transformer blocks by `PlainAttention`; other modules stay."""
    for block in model.modules():
        attention = getattr(block, "attn", None)
        if (
            isinstance(block, ResidualAttentionBlock)
            and type(attention) is nn.MultiheadAttention
            and not hasattr(block, "ln_1_kv")  # cross-attention
            and attention.batch_first
            and attention.in_proj_weight is not None
        ):
            block.attn = PlainAttention(attention)


def fastest_attention(device: torch.device) -> AbstractContextManager[None]:
    """Context of a forward pass in which torch's attention uses the kernel that is fastest forward and backward.

    On the CPU that is the unfused one, whose backward is several times faster. Elsewhere torch chooses.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def transformers_attention(device: torch.device, dtype: torch.dtype) -> str:
    """The `attn_implementation` with which a transformers model is fastest, forward and backward.

    On the CPU that is "eager". Its softmax is in float32, so float64 uses the fused one even there.
    """
    return "eager" if device.type == "cpu" and dtype != torch.float64 else "sdpa"

"""Attention that is fast on the CPU, for the models whose library chooses another."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class PlainAttention(nn.Module):
    """Self-attention written out as two matrix products and a softmax, with the weights of a `nn.MultiheadAttention`.

    On a CPU, at 65 tokens and heads of 32, its forward and backward in bfloat16 take 3 ms where torch's fused kernel
    takes 20 ms, and its unfused one, which computes in float32 and looks for fully masked rows, 8 ms.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Three times the same [N, T, W], and an additive mask -> [N, T, W] and no weights, as the original has it."""
        n, tokens, width = query.shape
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        if attn_mask is not None:
            logits = logits + attn_mask
        return self.out_proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, width)), None


def write_out_attention(model: nn.Module) -> None:
    """Puts `PlainAttention` in the place of the self-attention of open_clip's transformer blocks; others stay."""
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
    """The context in which a forward pass through other blocks chooses its kernel, for it and its backward.

    On the CPU that is the unfused one, whose backward is several times faster; elsewhere torch chooses.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def transformers_attention(device: torch.device, dtype: torch.dtype) -> str:
    """The `attn_implementation` that a model of transformers is fastest with, forward and backward.

    On the CPU that is the one written out. Its softmax is in float32, so float64 takes the fused one all the same.
    """
    return "eager" if device.type == "cpu" and dtype != torch.float64 else "sdpa"

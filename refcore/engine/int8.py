"""Linear layers of frozen models in 8 bits: signed integers, with one scale for each row of the matrix.

Symmetric, to the nearest integer, as in LLM.int8() (arXiv 2208.07339, section 2.1), but activations keep their dtype.
No graph stores the wide matrix, which the forward and the backward pass each make and drop.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refcore.engine.networks import networks
from refcore.plugin import Plugin

LEVELS = 127
"""Largest integer of a row, which stands for its largest magnitude."""


class Int8Linear(nn.Module):
    """`nn.Linear` with 8-bit weights; differentiable in its input alone."""

    rows: Tensor
    """[d_out, d_in] int8."""
    scale: Tensor
    """[d_out, 1] float32 (float64 of a float64 layer)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        scale = wide.abs().amax(1, keepdim=True) / LEVELS
        self.register_buffer("rows", (wide / scale.where(scale > 0, 1.0)).round_().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype

    @property
    def weight(self) -> Tensor:
        """[d_out, d_in] the wide matrix, made anew, in the dtype of the layer it replaces."""
        return _wide(self.rows, self.scale, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out], in the dtype of `x` or of autocast."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        product: Tensor = _Product.apply(x, self.rows, self.scale, self.bias)
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, scale)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, _wide(rows, scale, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (rows, scale) = gradients, ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ _wide(rows, scale, gradient.dtype), None, None, None


def _wide(rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (rows.to(scale.dtype) * scale).to(dtype)


class Int8Attention(nn.Module):
    """`nn.MultiheadAttention`, packed and batch first, with 8-bit weights; it returns no attention weights."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        biases = [None] * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        matrices = attention.in_proj_weight.chunk(3)
        self.projections = nn.ModuleList(Int8Linear(w, b) for w, b in zip(matrices, biases, strict=True))
        self.out_proj = Int8Linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """[N, T, W], and twice [N, S, W] -> [N, T, W] and None.

        `attn_mask` is [T, S] or [N * heads, T, S], additive, or boolean and true where nothing is attended to.
        """
        n, tokens, width = query.shape
        given = zip(self.projections, (query, key, value), strict=True)
        q, k, v = (project(x).view(n, x.shape[1], self.heads, -1).transpose(1, 2) for project, x in given)
        if attn_mask is not None:
            mask = attn_mask.view(n, self.heads, *attn_mask.shape[1:]) if attn_mask.ndim == 3 else attn_mask
            attn_mask = ~mask if mask.dtype == torch.bool else mask.to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(attended.transpose(1, 2).reshape(n, tokens, width)), None


def store_in_int8(plugin: Plugin) -> None:
    """Replaces the linear layers in the networks of a loaded plugin, in place.

    A matrix that another module holds, too (that of an embedding, in many language models), is left as it is, and so
    are subclasses of `nn.Linear`, and the attention in torch's own transformer layers, which reads its matrices.
    """
    for network in networks(plugin):
        shared = _shared(network)
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and id(child.weight) not in shared:
                    setattr(parent, name, Int8Linear(child.weight, child.bias))
                elif _is_packed(child) and not isinstance(
                    parent, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
                ):
                    setattr(parent, name, Int8Attention(child))  # type: ignore[arg-type]


def _is_packed(module: nn.Module) -> bool:
    """Whether a module is an attention that `Int8Attention` can replace."""
    return (
        type(module) is nn.MultiheadAttention
        and module.batch_first
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _shared(network: nn.Module) -> set[int]:
    """Ids of the parameters that several modules hold."""
    once: set[int] = set()
    several: set[int] = set()
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            (several if id(parameter) in once else once).add(id(parameter))
    return several

"""Gradient checkpointing: which activations are kept for the backward pass and which are computed again.

``none`` keeps all, ``full`` keeps each block's inputs only and runs the block again, ``selective`` keeps the results
of the attentions as well: at 17,550 tokens attention is half of a block's arithmetic and a tenth of its activations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

RecomputationPolicy = Literal["none", "selective", "full"]
"""Names of the policies."""


def set_recomputation(transformer: nn.Module, policy: RecomputationPolicy) -> None:
    """Apply a policy to a diffusers transformer, in place."""
    if policy == "none":
        transformer.disable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' models have it
    else:
        function = checkpoint_block if policy == "full" else checkpoint_block_but_attention
        transformer.enable_gradient_checkpointing(function)  # type: ignore[operator]


def checkpoint_block(block: Callable[..., Any], *inputs: Any) -> Any:
    """Run a block and keep its inputs only."""
    from torch.utils.checkpoint import checkpoint

    return checkpoint(block, *inputs, use_reentrant=False)


def checkpoint_block_but_attention(block: Callable[..., Any], *inputs: Any) -> Any:
    """Run a block and keep its inputs and the results of its attention."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    contexts = partial(create_selective_checkpoint_contexts, _attention_operators())
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


def _attention_operators() -> list[Any]:
    """The fused attentions of torch, of which each device has its own."""
    import torch

    aten = torch.ops.aten
    return [
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
    ]

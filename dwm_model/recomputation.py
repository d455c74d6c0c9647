"""Gradient checkpointing: which activations are kept for the backward pass and which are computed again.

``none`` keeps all, ``full`` keeps each block's inputs only and runs the block again, ``selective`` keeps the results
of the attentions as well: at 17,550 tokens attention is half of a block's arithmetic and a tenth of its activations.
The last block keeps all under any policy: the backward pass begins with it, so that running it again would only fetch
what was there a moment ago, and the peak of the memory is the same.
"""

from __future__ import annotations

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
        run = partial(_run_block, transformer_blocks(transformer)[-1], policy == "selective")
        transformer.enable_gradient_checkpointing(run)  # type: ignore[operator]


def transformer_blocks(transformer: Any) -> Any:
    """The blocks of a CogVideoX or Wan transformer."""
    return transformer.blocks if hasattr(transformer, "blocks") else transformer.transformer_blocks


def _run_block(last: nn.Module, keep_attention: bool, block: nn.Module, *inputs: Any) -> Any:
    """Run a block and keep its inputs only, and the results of its attention if wanted; of the last, everything."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    if block is last:
        return block(*inputs)
    if not keep_attention:
        return checkpoint(block, *inputs, use_reentrant=False)
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

"""The small text encoder: T5's, a few hundred thousand weights, that has learned to guess hidden words of prompts.

Guessing a word from the others makes embeddings tell objects, colours, hands and directions apart. It takes seconds.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.clip_order import stable_seed
from dwm_model.spelling import COMMON_WORDS, END_TOKEN, PAD_TOKEN, UNKNOWN_TOKEN, make_tokenizer, vocabulary_of
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

logger = logging.getLogger(__name__)

TEXT_TOKENS = 32
"""Length of a prompt embedding of the small base."""

_UNTOUCHED = (PAD_TOKEN, END_TOKEN)


class TextSettings(BaseModel):
    """Size and training of the small text encoder; the defaults made the one that ships."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=64, description="Width of an embedding.", gt=0)
    layers: int = Field(default=2, description="Transformer layers.", gt=0)
    heads: int = Field(default=4, description="Attention heads.", gt=0)
    steps: int = Field(default=600, description="Optimizer steps.", gt=0)
    batch_size: int = Field(default=64, description="Prompts a step.", gt=0)
    learning_rate: float = Field(default=3e-3, description="Peak rate; it falls to zero.", gt=0)
    hidden_share: float = Field(default=0.25, description="Share of words that are hidden.", gt=0, lt=1)
    seed: int = Field(default=0, description="Seed of weights and hidden words.")


@dataclass(frozen=True)
class TrainedText:
    """A text encoder with its tokenizer.

    Attributes:
        encoder: the encoder.
        tokenizer: its tokenizer.
        guessed_share: share of hidden words that it guesses in the last tenth of the steps; None where it was read.
    """

    encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    guessed_share: float | None = None


def train_text_encoder(prompts: Sequence[str], settings: TextSettings) -> TrainedText:
    """Train on prompts; the same prompts and settings give the same weights.

    Raises:
        DwmError: there is no prompt.
    """
    import torch
    from torch.nn import functional

    if not any(prompts):
        raise DwmError("text encoder: there are no prompts to learn from; build clips that have some")
    words = [*COMMON_WORDS.split(), *(word for prompt in prompts for word in re.findall(r"\w+", prompt))]
    tokenizer = make_tokenizer(words)
    tokens = _tokens(tokenizer, sorted(set(prompts)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder: Any = _encoder(len(vocabulary_of(words)), settings).train()
    table = encoder.shared.weight
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps)
    guessed: list[float] = []
    for step in range(settings.steps):
        generator = torch.Generator().manual_seed(stable_seed("text", settings.seed, step))
        chosen = tokens[torch.randint(0, len(tokens), (settings.batch_size,), generator=generator)]
        is_word = torch.stack([chosen != token for token in _UNTOUCHED]).all(dim=0)
        is_hidden = is_word & (torch.rand(chosen.shape, generator=generator) < settings.hidden_share)
        seen = chosen.masked_fill(is_hidden, UNKNOWN_TOKEN)
        states = encoder(input_ids=seen).last_hidden_state  # pads are seen, as by CogVideoX pipelines
        guesses = states[is_hidden] @ table.T
        loss: torch.Tensor = functional.cross_entropy(guesses, chosen[is_hidden])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        guessed.append(float((guesses.argmax(dim=-1) == chosen[is_hidden]).float().mean()))
    last = guessed[-max(1, settings.steps // 10) :]
    share = sum(last) / len(last)
    logger.info("text encoder: guesses %.0f %% of hidden words", 100 * share)
    return TrainedText(encoder.eval(), tokenizer, share)


def _encoder(vocabulary: int, settings: TextSettings) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=settings.width,
            d_kv=settings.width // settings.heads,
            d_ff=4 * settings.width,
            num_layers=settings.layers,
            num_heads=settings.heads,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=PAD_TOKEN,
            eos_token_id=END_TOKEN,
        )
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> torch.Tensor:
    """Tokens of prompts, [N, tokens], cut and padded as `prompts.embed_prompt` does."""
    found: torch.Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
    ).input_ids
    return found

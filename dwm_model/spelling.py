"""Tokenizers of the small bases: known words are one token, anything else is spelled letter by letter."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMMON_WORDS = (
    "a an the i my me it is are on in at to of and or with from into onto up down left right hand hands both thumb "
    "fingers finger reach reaches grasp grasps grip hold holds pick picks up lift lifts move moves push pushes pull "
    "pulls slide slides place places put puts open opens close closes turn turns press presses pour pours stand walk "
    "approach step table desk floor wall room kitchen counter shelf box cup bowl pot pan bottle cushion door drawer "
    "handle button faucet water fridge refrigerator couch chair plate glass book lid red green blue yellow white black "
    "brown grey wooden metal small large top bottom front back near over under then while now slowly across along "
    "camera view scene object video first forward toward towards away side edge middle inside empty full static"
)
"""Words of everyday actions."""

PAD_TOKEN, END_TOKEN, UNKNOWN_TOKEN = 0, 1, 2


def vocabulary_of(words: Iterable[str]) -> list[tuple[str, float]]:
    """Pieces with log scores: special tokens, the words, then single characters."""
    pieces = [f"▁{word}" for word in sorted(set(words))]
    marks = list(string.ascii_letters + string.digits + string.punctuation)
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    return special + [(piece, -5.0) for piece in pieces] + [(mark, -6.0) for mark in marks]


def make_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerBase:
    """Unigram tokenizer over `vocabulary_of`; given as a list because a file name would be ignored silently."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=vocabulary_of(words), extra_ids=0)

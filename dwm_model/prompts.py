"""Prompt embeddings: the text encoder runs once a prompt, and is not in memory while training.

An embedding lies in ``latents/encoders-<hash8>/prompts/<hash of the prompt>.safetensors``, float16 [tokens, dim],
padded to the base's text length as the base's pipelines do: CogVideoX without attention mask, Wan with one and zeros in
the place of the padding. The empty prompt, which guidance and prompt dropout need, is always there.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from dwm_model.base_model import BaseDescription
from manifests.atomic import write_bytes
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import ClipStatus

if TYPE_CHECKING:
    import torch

    from dwm_model.base_model import BaseModel as DiffusionBase

logger = logging.getLogger(__name__)

_TENSOR_NAME = "embedding"
_LENGTH_FLAGS = ("prompt_cut:", "long_prompt:")


def embed_prompt(base: DiffusionBase, prompt: str) -> torch.Tensor:
    """Embedding of a prompt, float32 on the CPU, [tokens, dim]; longer prompts are cut, with a warning.

    The values are rounded to float16, so that an embedding is the same whether it comes from here or from the cache.
    """
    import torch

    length = base.description.text_tokens
    needed = len(base.tokenizer(prompt).input_ids)
    if needed > length:
        logger.warning("prompt of %d tokens cut to %d: %.60s...", needed, length, prompt)
    tokens = base.tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, add_special_tokens=True, return_tensors="pt"
    )
    ids, mask = tokens.input_ids.to(base.device), tokens.attention_mask.to(base.device)
    with torch.inference_mode():
        if base.family.is_wan:
            embedding = base.text_encoder(ids, mask)[0][0] * mask[0][:, None]
        else:
            embedding = base.text_encoder(ids)[0][0]
    rounded: torch.Tensor = embedding.to(torch.float16).float().cpu()
    return rounded


def is_prompt_embedded(dataset: Dataset, base: BaseDescription, prompt: str) -> bool:
    """Whether a prompt's embedding is cached."""
    return _prompt_path(dataset, base, prompt).exists()


def missing_prompts(dataset: Dataset, base: BaseDescription) -> list[str]:
    """Prompts of the dataset's usable clips, and the empty prompt, that have no embedding yet; sorted."""
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    prompts = {"", *dataset.clips.read(["prompt"], usable).column("prompt").to_pylist()}
    return sorted(prompt for prompt in prompts if not is_prompt_embedded(dataset, base, prompt))


def encode_prompts(dataset: Dataset, base: DiffusionBase) -> int:
    """Embed all prompts that have no embedding yet and flag clips whose prompt is cut, with the text encoder alone.

    Returns:
        Number of prompts embedded.

    Raises:
        DwmError: a file cannot be written.
    """
    import torch
    from safetensors.torch import save

    flag_cut_prompts(dataset, base)
    missing = missing_prompts(dataset, base.description)
    for prompt in missing:
        embedding = embed_prompt(base, prompt).to(torch.float16).contiguous()
        write_bytes(_prompt_path(dataset, base.description, prompt), save({_TENSOR_NAME: embedding}))
    return len(missing)


def flag_cut_prompts(dataset: Dataset, base: DiffusionBase) -> int:
    """Flag the clips whose prompt has more tokens than the base's text encoder takes (226 for CogVideoX).

    An earlier flag of this kind, and the estimate that a build wrote, make way for the exact count.

    Returns:
        Number of clips whose flags changed.
    """
    length = base.description.text_tokens
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    table = dataset.clips.read(["clip_id", "prompt", "flags"], usable)
    counts: dict[str, int] = {}
    changed: dict[str, tuple[str, ...]] = {}
    for clip_id, prompt, flags in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
        if len(prompt) >= length and prompt not in counts:  # a token is at least a letter, and the end sign is one
            counts[prompt] = len(base.tokenizer(prompt).input_ids)
        kept = [flag for flag in flags or () if not flag.startswith(_LENGTH_FLAGS)]
        if counts.get(prompt, 0) > length:
            kept.append(f"prompt_cut: {counts[prompt]} tokens, the base '{base.description.name}' takes {length}")
        if kept != list(flags or ()):
            changed[clip_id] = tuple(kept)
    if changed:
        rows = dataset.clips.rows(where=ds.field("clip_id").isin(list(changed)))
        dataset.clips.upsert([row.updated(flags=changed[row.clip_id]) for row in rows])
    return len(changed)


def load_prompt_embedding(dataset: Dataset, base: BaseDescription, prompt: str) -> torch.Tensor:
    """Cached embedding of a prompt, float32 [tokens, dim].

    Raises:
        DwmError: the prompt is not encoded, or its file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _prompt_path(dataset, base, prompt)
    try:
        embedding = load_file(path)[_TENSOR_NAME]
    except FileNotFoundError as error:
        shown = f"'{prompt[:60]}'" if prompt else "the empty prompt"
        raise DwmError(f"{path}: no embedding of {shown}; run `dwm encode`") from error
    except (SafetensorError, KeyError, OSError) as error:
        raise DwmError(f"{path}: damaged ({error}); delete it and run `dwm encode` again") from error
    expected = (base.text_tokens, base.text_dim)
    if tuple(embedding.shape) != expected:
        raise DwmError(
            f"{path}: embedding is {list(embedding.shape)}, base {base.name} needs {list(expected)}; "
            "delete it and run `dwm encode` again"
        )
    return embedding.float()


def _prompt_path(dataset: Dataset, base: BaseDescription, prompt: str) -> Path:
    return dataset.latents_folder / base.latent_name / "prompts" / f"{short_id(prompt)}.safetensors"

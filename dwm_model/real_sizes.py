"""Real sizes of the supported bases, as data: built on torch's meta device, which has shapes and no numbers.

The configurations are those of the published ``transformer/config.json`` files as far as they decide shapes, positions
and token counts; the numbers of parameters are checked by tests. Run ``python -m dwm_model.real_sizes`` to write the
table of `docs/model.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.conditioning import CONDITIONINGS, get_conditioning
from dwm_model.families import FUN_V1_1, FUN_V1_5, WAN_FUN_INP, ModelFamily
from dwm_model.lora import TRAINED_PREFIXES, LoraSettings, add_lora, trainable_parameters
from manifests.atomic import write_text
from manifests.errors import DwmError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "model.md"

_BEGIN, _END = "<!-- sizes: written by `python -m dwm_model.real_sizes` -->", "<!-- end of sizes -->"

_COGVIDEOX_5B: dict[str, Any] = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 33,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "num_layers": 42,
    "patch_size": 2,
    "max_text_seq_length": 226,
    "use_rotary_positional_embeddings": True,
}

_WAN: dict[str, Any] = {
    "attention_head_dim": 128,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "image_dim": 1280,
}


@dataclass(frozen=True)
class RealBase:
    """A published base.

    Attributes:
        repository: where it is published.
        family: how it patches latents.
        config: arguments of its transformer.
    """

    repository: str
    family: ModelFamily
    config: dict[str, Any] = field(repr=False)

    def build(self) -> Any:
        """Its transformer on the meta device, frozen."""
        import torch
        from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

        kind = WanTransformer3DModel if self.family.is_wan else CogVideoXTransformer3DModel
        with torch.device("meta"):
            return kind(**self.config).requires_grad_(False)

    def tokens(self, width: int = 720, height: int = 480, num_frames: int = 49) -> int:
        """Video tokens that its blocks see of a clip, by default the paper's."""
        latent_frames = self.family.padded_frames((num_frames - 1) // 4 + 1)
        return latent_frames // (self.family.patch_size_t or 1) * (height // 16) * (width // 16)


REAL_BASES: dict[str, RealBase] = {
    "fun_v1_1 5B": RealBase(
        "alibaba-pai/CogVideoX-Fun-V1.1-5b-InP",
        FUN_V1_1,
        {**_COGVIDEOX_5B, "sample_width": 90, "sample_height": 60, "sample_frames": 49, "patch_size_t": None},
    ),
    "fun_v1_5 5B": RealBase(
        "alibaba-pai/CogVideoX-Fun-V1.5-5b-InP",
        FUN_V1_5,
        {**_COGVIDEOX_5B, "sample_width": 300, "sample_height": 300, "sample_frames": 81, "patch_size_t": 2},
    ),
    "wan_fun_inp 1.3B": RealBase(
        "alibaba-pai/Wan2.1-Fun-V1.1-1.3B-InP",
        WAN_FUN_INP,
        {**_WAN, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30, "added_kv_proj_dim": 1536},
    ),
    "wan_fun_inp 14B": RealBase(
        "alibaba-pai/Wan2.1-Fun-V1.1-14B-InP",
        WAN_FUN_INP,
        {**_WAN, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40, "added_kv_proj_dim": 5120},
    ),
}
"""The published bases, by family and size."""


class SizeRow(BaseModel):
    """Sizes of a base with a conditioning."""

    model_config = ConfigDict(frozen=True)

    base: str = Field(description="Family and size.")
    conditioning: str = Field(description="How hands enter the network.")
    in_channels: int = Field(description="Input channels.")
    tokens: int = Field(description="Video tokens of a clip of 720x480 and 49 frames.")
    parameters: int = Field(description="Parameters of the network without adapter.")
    projection: int = Field(description="Parameters of the patch projection, which trains whole.")
    added: int = Field(description="Parameters of the modules that the conditioning adds, which train whole.")
    lora: int = Field(description="Parameters of a LoRA adapter of rank 64.")


def measure(base_name: str, conditioning_name: str, rank: int = 64) -> SizeRow:
    """Build a base with a conditioning and an adapter on the meta device and count.

    Raises:
        DwmError: the family does not take the conditioning.
    """
    import torch

    real = REAL_BASES[base_name]
    transformer = real.build()
    with torch.device("meta"):
        get_conditioning(conditioning_name).prepare(transformer, real.family)
        parameters = sum(one.numel() for one in transformer.parameters())
        add_lora(transformer, LoraSettings(rank=rank, alpha=float(rank)), seed=0)
    counts = {name: one.numel() for name, one in trainable_parameters(transformer).items()}
    projection = f"{real.family.projection_name}."
    return SizeRow(
        base=base_name,
        conditioning=conditioning_name,
        in_channels=transformer.config.in_channels,
        tokens=real.tokens(),
        parameters=parameters,
        projection=sum(count for name, count in counts.items() if name.startswith(projection)),
        added=sum(
            count
            for name, count in counts.items()
            if name.startswith(TRAINED_PREFIXES) and not name.startswith(projection)
        ),
        lora=sum(count for name, count in counts.items() if ".lora_" in name),
    )


def all_rows() -> Iterator[SizeRow]:
    """Sizes of every base with every conditioning that it takes."""
    for base_name, real in REAL_BASES.items():
        for name in CONDITIONINGS:
            if real.family.is_wan and name not in {"hand_mesh", "none"}:
                continue  # hand_mask has the sizes of hand_mesh, and the others are refused
            if name == "hand_mask":
                continue
            yield measure(base_name, name)


def sizes_table(rows: Iterator[SizeRow]) -> str:
    """The table of the page."""
    heads = ("base", "conditioning", "channels", "tokens", "parameters", "patch projection", "added", "LoRA r64")
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in rows:
        numbers = (row.in_channels, row.tokens, row.parameters, row.projection, row.added, row.lora)
        shown = "hand_mesh, hand_mask" if row.conditioning == "hand_mesh" else row.conditioning
        lines.append(f"| {row.base} | {shown} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(lines)


def with_table(page: str, table: str, begin: str = _BEGIN, end: str = _END) -> str:
    """The page with the table between two marks exchanged.

    Raises:
        DwmError: the page has no place for it.
    """
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise DwmError(f"{PAGE}: has no '{begin}' and '{end}'; put them back")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), sizes_table(all_rows())))

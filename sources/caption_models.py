"""Captions by local models through transformers: a vision-language model, and a text model for first-person wording.

Nothing is downloaded, and no code that comes with a model is run. Never run with a real model here: the tests build
small ones with random weights in the same form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from manifests.errors import UsageError
from render.contact_sheet import evenly_spaced
from render.framing import Frames
from sources.captions import FALLBACK_PROMPT, VISION_MODEL, Caption, Captioner

NUM_FRAMES = 16
"""Frames that a vision-language model looks at, evenly over the clip, as in the public release."""
MAX_NEW_TOKENS = 160

_INSTRUCTION = (
    "These are {count} frames of a video, in order, seen by a person who acts with their hands. "
    "Say in one or two sentences in the first person, beginning with 'I', what I do with my hands and to which things."
)
_HINT = " What is known about the video: {text}"
_REWRITE = (
    "Rewrite this description of a video in the first person, in one or two sentences beginning with 'I', "
    "without adding anything: {text}"
)


class VisionCaptioner:
    """A vision-language model that looks at a clip's frames; the data's own caption is its hint."""

    def __init__(self, folder: Path) -> None:
        _require_model(folder, "vision-language model", "vlm")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._folder = folder
        self._processor: Any = _loaded(AutoProcessor, folder, "a processor (preprocessor_config.json, tokenizer)")
        self._model: Any = _loaded(AutoModelForImageTextToText, folder, "an image-text-to-text model").eval()

    def caption(self, given: Caption | None, frames: Frames) -> Caption:
        """One or two sentences about a clip."""
        chosen = evenly_spaced(len(frames), NUM_FRAMES)
        images = [{"type": "image", "image": Image.fromarray(frames[index])} for index in chosen]
        text = _INSTRUCTION.format(count=len(images))
        if given is not None and given.text:
            text += _HINT.format(text=given.text)
        messages = [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]
        inputs = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        return _checked(_generated(self._model, self._processor, inputs), VISION_MODEL, given)


class TextModelRewriter:
    """Puts another captioner's text into the first person with a text model."""

    def __init__(self, captioner: Captioner, folder: Path) -> None:
        _require_model(folder, "text model", "text_model")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._captioner = captioner
        self._tokenizer: Any = _loaded(AutoTokenizer, folder, "a tokenizer")
        self._model: Any = _loaded(AutoModelForCausalLM, folder, "a causal language model").eval()

    def caption(self, given: Caption | None, frames: Frames) -> Caption:
        """The rewritten text; one that already speaks in the first person stays as it is."""
        plain = self._captioner.caption(given, frames)
        if plain.text.startswith(("I ", "My ", "I'")):
            return plain
        messages = [{"role": "user", "content": _REWRITE.format(text=plain.text)}]
        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        return _checked(_generated(self._model, self._tokenizer, inputs), f"{plain.origin}_text_model", plain)


def _require_model(folder: Path, kind: str, setting: str) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{setting} {folder}: no {kind} here (no config.json); give the folder of a local transformers model"
        )


def _loaded(loader: Any, folder: Path, what: str) -> Any:
    try:
        return loader.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise UsageError(f"{folder}: transformers cannot load {what} from it ({first}); check the folder") from error


def _generated(model: Any, decoder: Any, inputs: Any) -> str:
    """What a model answers, greedily: the same for the same inputs."""
    import torch

    with torch.inference_mode():
        tokens = model.generate(**inputs.to(model.device), max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    answer = tokens[:, inputs["input_ids"].shape[1] :]
    text: str = decoder.batch_decode(answer, skip_special_tokens=True)[0]
    return " ".join(text.split())


def _checked(text: str, origin: str, given: Caption | None) -> Caption:
    """A model's answer; where it says nothing, the given caption with a flag."""
    flags = () if given is None else given.flags
    if text:
        return Caption(text, origin, flags)
    flag = f"empty_caption: the {origin} model said nothing"
    if given is not None and given.text:
        return Caption(given.text, given.origin, (*flags, flag))
    return Caption(FALLBACK_PROMPT, "fallback", (*flags, flag))

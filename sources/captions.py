"""Prompts of clips: where they come from, first-person wording, and how long they are.

A captioner gives the text of a clip: the annotation that came with the data, a caption file, or a vision-language
model (`sources/caption_models.py`). Prompts of the paper are in the first person; a template or a text model rewrites
others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from manifests.hashing import hash_file, hash_json
from render.framing import Frames

ANNOTATION = "annotation"
"""``prompt_origin`` of a caption that came with the data set."""
CAPTION_FILE = "file"
"""``prompt_origin`` of a caption file beside one's own videos."""
VISION_MODEL = "vlm"
"""``prompt_origin`` of a vision-language model's caption."""
FALLBACK = "fallback"
"""``prompt_origin`` where nobody says what happens."""
FALLBACK_PROMPT = "I handle things with my hands."

T5_TOKENS = 226
"""Tokens of a prompt that CogVideoX's text encoder takes."""

Captioning = Literal["given", "vlm"]
Rewriting = Literal["none", "template", "text_model"]


@dataclass(frozen=True)
class Caption:
    """Text of a clip, where it comes from (the manifest's ``prompt_origin``), and reasons to look."""

    text: str
    origin: str
    flags: tuple[str, ...] = ()


class Captioner(Protocol):
    """Says what happens in a clip."""

    def caption(self, given: Caption | None, frames: Frames) -> Caption:
        """Text of a clip.

        Args:
            given: what the data says about it; a model takes it as a hint.
            frames: uint8 RGB [T, H, W, 3].
        """


class GivenCaptions:
    """The caption that came with the data, as it is; a plain sentence where there is none."""

    def caption(self, given: Caption | None, frames: Frames) -> Caption:  # noqa: ARG002 - it looks at no picture
        """The given caption."""
        if given is not None and given.text:
            return given
        flags = () if given is None else given.flags
        return Caption(FALLBACK_PROMPT, FALLBACK, (*flags, "no_caption: nothing says what happens in this clip"))


class CaptionSettings(BaseModel):
    """How clips get their prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    captioning: Captioning = Field(
        default="given", description="`given`: the data's own captions; `vlm`: a vision-language model looks at frames."
    )
    rewriting: Rewriting = Field(
        default="none", description="First-person wording: `none`, `template` (rules), `text_model` (a local model)."
    )
    vlm: Path | None = Field(default=None, description="Folder of a local vision-language model (transformers).")
    text_model: Path | None = Field(default=None, description="Folder of a local text model (transformers).")

    @model_validator(mode="after")
    def _models_are_given(self) -> CaptionSettings:
        if self.captioning == "vlm" and self.vlm is None:
            raise ValueError("captioning 'vlm' needs the folder of a vision-language model (vlm)")
        if self.rewriting == "text_model" and self.text_model is None:
            raise ValueError("rewriting 'text_model' needs the folder of a text model (text_model)")
        return self

    def config_hash(self) -> str:
        """Hash of everything that prompts depend on; of a model, its configuration and the sizes of its files."""
        content = self.model_copy(update={"vlm": None, "text_model": None}).model_dump(mode="json")
        models = {"vlm": _model_content(self.vlm), "text_model": _model_content(self.text_model)}
        return hash_json({"settings": content, "models": models})


def open_captioner(settings: CaptionSettings) -> Captioner:
    """The captioner that the settings name, with its rewriting.

    Raises:
        UsageError: a model's folder is missing or holds no such model.
    """
    captioner: Captioner = GivenCaptions()
    if settings.captioning == "vlm" and settings.vlm is not None:
        from sources.caption_models import VisionCaptioner

        captioner = VisionCaptioner(settings.vlm)
    if settings.rewriting == "text_model" and settings.text_model is not None:
        from sources.caption_models import TextModelRewriter

        return TextModelRewriter(captioner, settings.text_model)
    return TemplateRewriter(captioner) if settings.rewriting == "template" else captioner


class TemplateRewriter:
    """Puts another captioner's text into the first person by rules."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner

    def caption(self, given: Caption | None, frames: Frames) -> Caption:
        """The text in the first person; its origin says so where the rules changed anything."""
        plain = self._captioner.caption(given, frames)
        text = first_person(plain.text)
        return plain if text == plain.text else Caption(text, f"{plain.origin}_template", plain.flags)


_PERSON = r"(?:the|a|one)\s+(?:person|man|woman|human|actor|user|individual|someone|boy|girl|child)"
_SUBJECT = re.compile(rf"^(?:{_PERSON}|he|she|they|someone|somebody|people)\s+", re.IGNORECASE)
_HANDS = re.compile(r"^(?:the\s+|a\s+)?((?:both\s+|two\s+|left\s+|right\s+)?hands?)\s+", re.IGNORECASE)
_OWN = ((r"\b(?:his|her|their)\b", "my"), (r"\b(?:himself|herself|themselves|themself)\b", "myself"))
_IRREGULAR = {"is": "am", "are": "am", "has": "have", "does": "do", "goes": "go", "was": "was", "were": "was"}
_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    add adjust arrange attach bend bring brush build carry catch clean clear close collect connect cook cover
    crack crumple cut dip divide draw dress drink drop dry eat empty erase feed fetch fill find fix flip fold
    get give grab grasp hand hang hit hold insert iron join knead knock lay lift light lock look make measure
    mix mount move open organise organize pack paint pass peel pick pinch place plug polish pour press pull pump
    push put raise reach remove replace return roll rotate rub scoop scrape screw scrub separate set sew shake
    sharpen shift shut slice slide smear sort spin spray spread squeeze stack stamp staple stir straighten
    stretch sweep swing swirl switch take tear throw tidy tie tilt touch transfer turn twist type unfold unlock
    unpack unplug unscrew untie unwrap use wash water wear weigh wind wipe wrap wring write zip
    """,
    )
)
"""Verbs that begin an instruction; a word that is none of them is left alone rather than guessed at."""


def first_person(text: str) -> str:
    """Sentences about someone, or to someone, as sentences of the one who acts; others stay as they are.

    ``The person opens the box.`` and ``Open the box`` become ``I open the box.``; ``Both hands lift the cup`` becomes
    ``My hands lift the cup.``
    """
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(_first_person_sentence(sentence) for sentence in sentences if sentence)


def _first_person_sentence(sentence: str) -> str:
    hands = _HANDS.match(sentence)
    subject = _SUBJECT.match(sentence)
    words = sentence.split(maxsplit=1)
    first = words[0].lower().strip(",")
    if subject:
        verb, _, rest = sentence[subject.end() :].partition(" ")
        changed = f"I {_base_form(verb)} {rest}".rstrip()
    elif hands:
        noun = re.sub(r"^(?:both|two)\s+", "", hands.group(1), flags=re.IGNORECASE).lower()
        changed = f"My {noun} {sentence[hands.end() :]}"
    elif first in _VERBS:
        changed = f"I {sentence[:1].lower()}{sentence[1:]}"
    elif first.endswith("ing") and _stem_of(first) in _VERBS:
        changed = f"I am {sentence[:1].lower()}{sentence[1:]}"
    else:
        return sentence
    for pattern, own in _OWN:
        changed = re.sub(pattern, own, changed, flags=re.IGNORECASE)
    return changed if changed[-1:] in {".", "!", "?"} else f"{changed}."


def _base_form(verb: str) -> str:
    """``opens`` as ``open``, ``carries`` as ``carry``, ``pushes`` as ``push``."""
    lower = verb.lower()
    if lower in _IRREGULAR:
        return _IRREGULAR[lower]
    if lower.endswith("ies") and len(lower) > 4:
        return f"{lower[:-3]}y"
    if lower.endswith(("ches", "shes", "sses", "xes", "zzes")):
        return lower[:-2]
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") else verb


def _stem_of(gerund: str) -> str:
    """``opening`` as ``open``, ``taking`` as ``take``, ``cutting`` as ``cut``."""
    stem = gerund[:-3]
    if stem in _VERBS:
        return stem
    return f"{stem}e" if f"{stem}e" in _VERBS else stem[:-1]


_SKIPPED_WORDS = frozenset({"the", "a", "an", "his", "her", "their", "my", "both", "hands"})
_ACTING_SUBJECT = re.compile(rf"^(?:{_PERSON}|he|she|they|i)\s+", re.IGNORECASE)
_LABEL_ENDS = frozenset(
    re.findall(
        r"\w+",
        """
    at from with on in into to onto by near towards toward while and then using for of behind beside
    """,
    )
)
_LABEL_WORDS = 4


def short_label(text: str) -> str | None:
    """Short name of an action: its words up to the first preposition, without articles (``pick up cup``)."""
    words = re.findall(r"[\w'-]+", _ACTING_SUBJECT.sub("", text.strip().split(". ")[0]).lower())
    kept: list[str] = []
    for word in words:
        if kept and word in _LABEL_ENDS:
            break
        if word not in _SKIPPED_WORDS:
            kept.append(word)
    return " ".join(kept[:_LABEL_WORDS]) or None


def estimated_tokens(text: str) -> int:
    """Tokens that a T5 tokenizer makes of a text, estimated on the safe side: no tokenizer is needed while building.

    A word of English is one token for every four letters begun, a sign is one, other scripts one a letter; the end
    sign is counted. Encoding counts exactly with the base's own tokenizer (`dwm_model/prompts.py`).
    """
    count = 1
    for word in re.findall(r"\w+|[^\w\s]", text):
        count += -(-len(word) // 4) if word.isascii() else len(word)
    return count


def length_flag(text: str) -> str | None:
    """A reason to look where a prompt may be longer than the text encoder takes."""
    count = estimated_tokens(text)
    if count <= T5_TOKENS:
        return None
    return (
        f"long_prompt: about {count} tokens by a careful estimate, the text encoder takes {T5_TOKENS}; "
        "encoding counts exactly and cuts the rest"
    )


def _model_content(folder: Path | None) -> str | None:
    """What identifies a model's folder without reading gigabytes."""
    if folder is None or not folder.is_dir():
        return None
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.*"))}
    config = folder / "config.json"
    return hash_json({"sizes": sizes, "config": hash_file(config) if config.is_file() else None})

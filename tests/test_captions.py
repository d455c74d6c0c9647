"""Prompts: given captions, first-person wording, length, and local models in the form that transformers loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import UsageError
from sources.captions import (
    FALLBACK_PROMPT,
    T5_TOKENS,
    Caption,
    CaptionSettings,
    estimated_tokens,
    first_person,
    length_flag,
    open_captioner,
    short_label,
)

FRAMES = np.zeros((17, 32, 48, 3), np.uint8)
WORDS = "these are frames of a video in order I push the box with my hands say what do rewrite this first person"
CHAT = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The person opens the box with his hands.", "I open the box with my hands."),
        ("A woman is carrying her cup", "I am carrying my cup."),
        ("Open the box", "I open the box."),
        ("Both hands lift the cup", "My hands lift the cup."),
        ("The left hand holds the bottle.", "My left hand holds the bottle."),
        ("Pouring coke into a glass", "I am pouring coke into a glass."),
        ("She carries it. He pushes the tin.", "I carry it. I push the tin."),
        ("I push the box.", "I push the box."),
        ("A cup is moved", "A cup is moved"),
        ("Ring the bell", "Ring the bell"),  # no known verb: left alone rather than guessed at
    ],
)
def test_first_person_by_template(text: str, expected: str) -> None:
    assert first_person(text) == expected
    assert first_person(expected) == expected


def test_given_captions_stay_as_they_are_unless_a_template_is_asked_for() -> None:
    given = Caption("Open the box", "annotation", ("caption_scene: x",))
    assert open_captioner(CaptionSettings()).caption(given, FRAMES) == given
    rewritten = open_captioner(CaptionSettings(rewriting="template")).caption(given, FRAMES)
    assert rewritten == Caption("I open the box.", "annotation_template", ("caption_scene: x",))


@pytest.mark.parametrize("given", [None, Caption("", "annotation")])
def test_without_a_caption_the_prompt_says_nothing_and_a_flag_says_so(given: Caption | None) -> None:
    caption = open_captioner(CaptionSettings(rewriting="template")).caption(given, FRAMES)
    assert (caption.text, caption.origin) == (FALLBACK_PROMPT, "fallback")
    assert caption.flags[-1].startswith("no_caption")


def test_long_prompts_are_flagged_on_the_safe_side() -> None:
    assert length_flag("I push the box. " * 5) is None
    flag = length_flag("I push the box. " * 60)
    assert flag is not None
    assert flag.startswith("long_prompt: about 301 tokens")
    assert estimated_tokens("word " * (T5_TOKENS - 1)) == T5_TOKENS
    assert estimated_tokens("手" * 10) == 11


def test_the_estimate_is_not_below_what_a_sentencepiece_tokenizer_counts(tmp_path: Path) -> None:
    from dwm_model.base_model import load_base
    from dwm_model.tiny import make_tiny_base

    make_tiny_base(tmp_path / "base")
    tokenizer = load_base(tmp_path / "base").tokenizer
    for text in ("I push the red box to the left with the right hand.", "I open the lid of the box, then I close it."):
        count = len(tokenizer(text).input_ids)
        assert count / 4 < estimated_tokens(text)  # the tiny base's vocabulary is far smaller than T5's


@pytest.mark.parametrize(("text", "label"), [("Both hands lift the cup. Then rest.", "lift cup"), ("", None)])
def test_labels_are_short(text: str, label: str | None) -> None:
    assert short_label(text) == label


def test_models_that_are_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vlm .*no vision-language model here \(no config.json\)"):
        open_captioner(CaptionSettings(captioning="vlm", vlm=tmp_path))
    with pytest.raises(UsageError, match="no text model here"):
        open_captioner(CaptionSettings(rewriting="text_model", text_model=tmp_path / "no"))
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(UsageError, match="transformers cannot load"):
        open_captioner(CaptionSettings(captioning="vlm", vlm=tmp_path))


def make_tokenizer():  # noqa: ANN201 - of a library that is imported late
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "<s>", "</s>", "<image>", *dict.fromkeys(WORDS.split())]
    unknown = {"unk_token": "<unk>"}
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, **unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<image>"])
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def test_a_text_model_rewrites_what_is_not_in_the_first_person(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    captioner = open_captioner(CaptionSettings(rewriting="text_model", text_model=tmp_path))
    given = Caption("push the box", "annotation", ("a flag",))
    caption = captioner.caption(given, FRAMES)
    assert caption.origin == "annotation_text_model"
    assert set(caption.text.split()) <= set(WORDS.split())
    assert caption.flags == ("a flag",)
    assert captioner.caption(given, FRAMES) == caption
    own = Caption("I push the box.", "annotation")
    assert captioner.caption(own, FRAMES) == own


def test_a_vision_model_looks_at_sixteen_frames_with_the_caption_as_a_hint(tmp_path: Path) -> None:
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token, image_seq_length=4)
    ).save_pretrained(tmp_path)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    ).save_pretrained(tmp_path)
    captioner = open_captioner(CaptionSettings(captioning="vlm", vlm=tmp_path))
    caption = captioner.caption(Caption("push the box", "annotation"), FRAMES)
    assert caption.origin == "vlm"
    assert caption.text
    assert captioner.caption(Caption("push the box", "annotation"), FRAMES) == caption

"""Text encoders: prompts to conditions, as diffusers' pipelines encode them, by the encoders in those pipelines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from iterinv.conditions import Condition
from iterinv.locks import Lock
from iterinv.models import Embed
from iterinv.models.tokens import Tokenize, Tokens

_TOKENIZING = Lock()  # a tokenizer holds how it pads and cuts, so two threads that use one would disturb each other
_WEIGHT = re.compile(r"[(\[][^()\[\]]*:\s*[\d.]+\s*[)\]]")


def t5(tokenizer: Any, encoder: Any, clean: Callable[[str], str] | None = None, device: str | None = None) -> Embed:
    """Read prompts as IF does: in lower case and stripped, or made ``clean``, and padded to 77 tokens; a mask hides the
    padding from the encoder."""

    @torch.no_grad()
    def embed(prompts: Sequence[str | None]) -> Condition:
        words = [(clean or plain)(prompt or "") for prompt in prompts]
        tokens, notes = tokens_of(tokenizer, words, 77, device or encoder.device)
        return Condition({"text": encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]}, notes)

    return embed


def clip(pipe: Any, size: int, device: str, clean: bool) -> Embed | None:
    """Read prompts as Stable Diffusion does: the last hidden state, padded to the tokenizer's length; ``None`` where a
    pipeline lacks a part."""
    if pipe.text_encoder is None or pipe.tokenizer is None:
        return None
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    masked = getattr(encoder.config, "use_attention_mask", False)

    @torch.no_grad()
    def embed(prompts: Sequence[str | None]) -> Condition:
        tokens, notes = tokens_of(tokenizer, prompts, tokenizer.model_max_length, device, pipe)
        text = encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]
        return Condition({"text": text}, notes)

    return embed


def with_guidance(embed: Embed, scale: float, device: str) -> Embed:
    """Read prompts as ``embed`` does, beside the guidance scale of a distilled network: ``guidance`` (rows,)."""

    def read(prompts: Sequence[str | None]) -> Condition:
        encoded = embed(prompts)
        guidance = torch.full((len(prompts),), scale, dtype=torch.float32, device=device)
        return encoded.updated(guidance=guidance)

    return read


def plain(prompt: str) -> str:
    """A prompt as IF reads it: in lower case and stripped."""
    return prompt.lower().strip()


def tokens_of(
    tokenizer: Any, prompts: Sequence[str | None], length: int, device: Any, pipe: Any = None, reader: str = ""
) -> tuple[Any, list[str]]:
    """Turn prompts into tokens (rows, length) and their mask, padded or cut; and notes on the parts that are not read.

    The notes name the ``reader``, the encoder that cuts them, where others read the prompt too.
    A word that stands for several vectors of a textual inversion in ``pipe`` becomes as many tokens. Raises
    ``ValueError`` for a prompt that is no text.
    """
    words, convert = [prompt or "" for prompt in prompts], getattr(pipe, "maybe_convert_prompt", None)
    for each in words:
        if any("\ud800" <= letter <= "\udfff" for letter in each):
            raise ValueError(f"the prompt {each!r} is not text in UTF-8: type it again")
    settings = {"padding": "max_length", "max_length": length, "truncation": True, "add_special_tokens": True}
    with _TOKENIZING, torch.device("cpu"):  # a tokenizer makes its tensors on torch's default device
        read = convert(words, tokenizer) if convert else words
        longest = max(map(len, tokenizer(read, add_special_tokens=True, verbose=False).input_ids))
        tokens = tokenizer(read, return_tensors="pt", **settings)
    by = f" by {reader}" if reader else ""
    cut = f"a prompt has {longest} tokens; those after the {length}th are not read{by}"
    notes = [cut] if longest > length else []
    if weight := next((match[0] for each in words if (match := _WEIGHT.search(each))), None):
        notes.append(f"weights in brackets, as {weight}, have no effect: they are read as text")
    return tokens.to(device), notes


def tokenize(tokenizer: Any, length: int, prepare: Callable[[str], str]) -> Tokenize:
    """Read prompts as the ``length`` tokens of an encoder, after ``prepare``.

    What is returned raises ``ValueError`` for a tokenizer that does not say which letters its tokens stand for.
    """

    def read(prompt: str) -> Tokens:
        if not tokenizer.is_fast:
            raise ValueError(
                f"a {type(tokenizer).__name__} does not say which words its tokens are: load the model with the "
                "tokenizer.json of its folder"
            )
        text = prepare(prompt)
        with _TOKENIZING:
            given = tokenizer(
                text, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True
            )
        return Tokens(text, tuple(given.input_ids), tuple(tuple(span) for span in given.offset_mapping))

    return read


def clip_tokens(pipe: Any, clean: bool) -> Tokenize | None:
    """Read the tokens of prompts as :func:`clip` does, with the vectors of a textual inversion; ``None`` where a
    pipeline has no tokenizer."""
    if (tokenizer := pipe.tokenizer) is None:
        return None
    convert = getattr(pipe, "maybe_convert_prompt", None)
    return tokenize(
        tokenizer, tokenizer.model_max_length, lambda prompt: str(convert(prompt, tokenizer)) if convert else prompt
    )

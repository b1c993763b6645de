"""Text encoders: prompts to conditions, as diffusers' pipelines encode them, by the encoders in those pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from iterinv.conditions import Condition
from iterinv.models import Embed


def t5(tokenizer: Any, encoder: Any, clean: Callable[[str], str] | None = None, device: str | None = None) -> Embed:
    """IF's: lower case and stripped, or made ``clean``; padded to 77 tokens, the padding masked from the encoder."""

    @torch.no_grad()
    def embed(prompts: list[str]) -> Condition:
        words = [(clean or _plain)(prompt) for prompt in prompts]
        tokens, notes = tokens_of(tokenizer, words, 77, device or encoder.device)
        return Condition({"text": encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]}, notes)

    return embed


def clip(pipe: Any, size: int, device: str, clean: bool) -> Embed | None:
    """Stable Diffusion's: the last hidden state, padded to the tokenizer's length; ``None`` where a pipeline lacks a
    part."""
    if pipe.text_encoder is None or pipe.tokenizer is None:
        return None
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder.eval().requires_grad_(False)
    masked = getattr(encoder.config, "use_attention_mask", False)

    @torch.no_grad()
    def embed(prompts: list[str]) -> Condition:
        tokens, notes = tokens_of(tokenizer, prompts, tokenizer.model_max_length, device)
        text = encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]
        return Condition({"text": text}, notes)

    return embed


def _plain(prompt: str) -> str:
    return prompt.lower().strip()


def tokens_of(tokenizer: Any, prompts: list[str], length: int, device: Any) -> tuple[Any, list[str]]:
    """Turn prompts into tokens (rows, length) and their mask, padded or cut; and a note on a prompt that is cut."""
    longest = max(map(len, tokenizer(prompts, add_special_tokens=True, verbose=False).input_ids))
    notes = [f"a prompt has {longest} tokens; what comes after the {length}th is not read"] if longest > length else []
    settings = {"padding": "max_length", "max_length": length, "truncation": True, "add_special_tokens": True}
    with torch.device("cpu"):  # a tokenizer makes its tensors on torch's default device
        return tokenizer(prompts, return_tensors="pt", **settings).to(device), notes

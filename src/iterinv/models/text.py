"""Text encoders: prompts to conditions, as diffusers' pipelines encode them, by the encoders in those pipelines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from iterinv.conditions import Condition
from iterinv.models import Embed


def t5(tokenizer: Any, encoder: Any, clean: Callable[[str], str] | None = None, device: str | None = None) -> Embed:
    """IF's: lower case and stripped, or made ``clean``; padded to 77 tokens, the padding masked from the encoder."""

    @torch.no_grad()
    def embed(prompts: list[str]) -> Condition:
        words = [(clean or _plain)(prompt) for prompt in prompts]
        tokens = _tokens(tokenizer, words, 77).to(device or encoder.device)
        return Condition({"text": encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]})

    return embed


def clip(tokenizer: Any, encoder: Any, device: str) -> Embed:
    """Stable Diffusion's: the last hidden state, padded to the tokenizer's length."""

    @torch.no_grad()
    def embed(prompts: list[str]) -> Condition:
        tokens = _tokens(tokenizer, prompts, tokenizer.model_max_length).to(device)
        masked = getattr(encoder.config, "use_attention_mask", False)
        return Condition({"text": encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]})

    return embed


def sdxl(tokenizers: Sequence[Any], encoders: Sequence[Any], zeros: bool, size: int, device: str) -> Embed:
    """SDXL's: the last hidden states but one of two encoders side by side, and the second's pooled text.

    ``time_ids`` tell the network that the picture is whole: ``size`` px, cut nowhere. ``zeros``: the empty prompt is all zeros
    (``force_zeros_for_empty_prompt``).
    """

    @torch.no_grad()
    def embed(prompts: list[str]) -> Condition:
        states, pooled = [], torch.empty(0)
        for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
            tokens = _tokens(tokenizer, prompts, tokenizer.model_max_length).to(device)
            out = encoder(tokens.input_ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = out[0]
        text = torch.cat(states, -1)
        said = torch.tensor([bool(prompt) or not zeros for prompt in prompts], device=text.device)
        whole = torch.tensor([[size, size, 0, 0, size, size]], dtype=text.dtype, device=text.device)
        return Condition(
            {
                "text": torch.where(said[:, None, None], text, 0.0),
                "pooled_text": torch.where(said[:, None], pooled, 0.0),
                "time_ids": whole.expand(len(prompts), -1),
            }
        )

    return embed


def _plain(prompt: str) -> str:
    return prompt.lower().strip()


def _tokens(tokenizer: Any, prompts: list[str], length: int) -> Any:
    longest = max(map(len, tokenizer(prompts, add_special_tokens=True, verbose=False).input_ids))
    if longest > length:
        warnings.warn(f"a prompt has {longest} tokens; what comes after the {length}th is not read", stacklevel=4)
    return tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, add_special_tokens=True, return_tensors="pt"
    )

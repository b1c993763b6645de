"""The text encoder, trained on captions alone and then frozen, as IF's T5 was.

Two tasks at once: say the words that were hidden, and read the scene's attributes off the encoded caption (each by a
learnt query; "not said" is an answer). The second makes a word's vector know which thing it belongs to.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iterinv.embedded.scenes import OF_SCENE, OF_THING, TEMPLATES, Scene, caption
from iterinv.embedded.scenes.caption import FLOOR_WORDS
from iterinv.embedded.train import data
from iterinv.embedded.train.progress import Clock

_SIZES = [1 + len(v) for v in (*OF_THING.values(), *OF_THING.values(), *OF_SCENE.values())]


def _answers(scene: Scene, words: str) -> list[int]:
    """Class of every attribute, 0 where the caption does not say it."""
    said = words.replace(",", "").split()
    classes = []
    for k in range(2):
        for name, values in OF_THING.items():
            value = getattr(scene.things[k], name) if k < len(scene.things) else None
            classes.append(1 + values.index(value) if value in said else 0)
    for name, values in OF_SCENE.items():
        value = getattr(scene, name)
        word = (
            FLOOR_WORDS[value] + " floor" if name == "floor" else f"{value} wall" if name == "wall" else f"the {value}"
        )
        classes.append(1 + values.index(value) if word in words and (name != "light" or "light" in said) else 0)
    return classes


class _Readers(nn.Module):
    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(_SIZES), width) * width**-0.5)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in _SIZES)
        self.word = nn.Linear(width, words)

    def forward(self, encoded: Tensor, real: Tensor) -> list[Tensor]:
        score = (self.queries @ encoded.mT).masked_fill(~real[:, None], -1e4)
        pooled = score.softmax(-1) @ encoded
        return [head(pooled[:, k]) for k, head in enumerate(self.heads)]


def train_text(recipe: Mapping[str, Any], words: Any, encoder: Any, clock: Clock) -> float:
    """Train ``encoder`` in place; gives the share of attributes read rightly over the last batches."""
    text = recipe["text"]
    torch.manual_seed(recipe["seed"])
    draw = random.Random(recipe["seed"])
    readers = _Readers(text["width"], len(words))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *readers.parameters()], lr=text["rate"], weight_decay=0.01)
    right = 0.0
    for step in clock:
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(recipe["warmup"])
        scenes = [data.scene(draw.randrange(recipe["data"]["small"]["count"])) for _ in range(text["batch"])]
        captions = [caption(scene, draw.randrange(TEMPLATES)) for scene in scenes]
        answers = torch.tensor([_answers(*pair) for pair in zip(scenes, captions, strict=True)])
        tokens = words(captions, padding="longest", return_tensors="pt")
        ids, real = tokens.input_ids, tokens.attention_mask.bool()
        hide = (torch.rand(ids.shape) < 0.15) & real & (ids > 1) & (torch.rand(len(ids), 1) < 0.5)
        encoded = encoder(torch.where(hide, 2, ids), attention_mask=tokens.attention_mask).last_hidden_state
        read = readers(encoded, real)
        untouched = ~hide.any(1)
        loss = sum(F.cross_entropy(r[untouched], answers[untouched, k]) for k, r in enumerate(read)) / len(read)
        loss = loss + 0.3 * F.cross_entropy(readers.word(encoded[hide]), ids[hide])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), recipe["clip_grad"])
        optimizer.step()
        hit = torch.stack([r[untouched].argmax(-1) == answers[untouched, k] for k, r in enumerate(read)])
        right = 0.95 * right + 0.05 * hit.float().mean().item()
        clock.say(step, loss=loss.item(), right=right)
    return right

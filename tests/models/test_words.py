"""The encoder reads a prompt as diffusers reads it; the embedded cascade ignores the marks around words."""

import random
import re
import threading
import unicodedata

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import iterinv
import published
from iterinv import families, sources
from iterinv.__main__ import command_line
from iterinv.embedded import FOLDER
from iterinv.embedded.advice import unknown_words
from iterinv.embedded.scenes import TEMPLATES, Scene, caption
from iterinv.embedded.scenes.caption import words_in
from iterinv.images import to_uint8
from iterinv.workbench import checked_prompt

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LETTERS = st.characters(exclude_categories=["Cs"])
TYPED = st.one_of(
    st.text(LETTERS, max_size=40),
    st.lists(
        st.sampled_from(["a Red", "(ball:1.3)", "[cube]", "“wall”", "naïve", "赤い", "🔵", ",", ";", "  ", "\n"])
    ).map(" ".join),
    st.integers(60, 120).map(lambda n: "one after another " * n),
)


@pytest.fixture(scope="module")
def pipes(tiny_folder):
    """Make a pipeline of every family that reads words."""
    made = {"sd": published.sd(), "sdxl": published.sdxl(), "x4": published.x4()}
    return made | {"if": sources.open_folder(tiny_folder / "stage1")}


@pytest.fixture(scope="module")
def stages(pipes):
    return {name: families.stage(pipe) for name, pipe in pipes.items()}


def theirs(pipe, prompt, negative=None):
    """Encode a prompt and a negative one by diffusers: (text, negative text, pooled, negative pooled)."""
    how = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    return pipe.encode_prompt(prompt, negative_prompt=negative, **how)


@pytest.mark.parametrize("name", ["sd", "sdxl", "x4", "if"])
@QUICK
@example(prompt="")
@example(prompt="a (red:1.3) [ball], “quoted” 🔵 ﬁne\u200b")
@given(prompt=TYPED)
def test_a_prompt_is_read_as_diffusers_reads_it(pipes, stages, name, prompt):
    pipe, stage = pipes[name], stages[name]
    one = stage.embed([prompt])
    condition = stage.condition(prompt, torch.zeros(1, 3, 16, 16))
    negative, empty = (stage.with_prompt(condition, words) for words in (None, ""))
    with torch.no_grad():
        expected, given = theirs(pipe, prompt), theirs(pipe, prompt, "")
    assert torch.equal(one["text"], expected[0])
    assert torch.equal(negative["text"], expected[1])
    assert torch.equal(empty["text"], given[1])
    if name == "sdxl":
        assert torch.equal(one["pooled_text"], expected[2])
        assert torch.equal(negative["pooled_text"], expected[3])
        assert torch.equal(empty["pooled_text"], given[3])
    assert torch.equal(stage.embed([prompt, ""])["text"][:1], one["text"]) or len(prompt) == 0


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_reads_the_empty_prompt_and_leaves_out_a_missing_one(zeros):
    """A missing negative prompt is zeros where the configuration says so; the empty prompt never is."""
    pipe = published.sdxl()
    pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    stage = families.stage(pipe)
    empty, missing = stage.embed([""]), stage.embed([None])
    assert all(bool(empty[name].abs().max() > 0) for name in ("text", "pooled_text"))
    for name in ("text", "pooled_text"):
        assert bool((missing[name] == 0).all()) == zeros
        assert torch.equal(missing[name], empty[name]) == (not zeros)


@pytest.mark.parametrize("vectors", [1, 4])
@pytest.mark.parametrize("name", ["sd", "sdxl", "x4"])
def test_a_textual_inversion_is_read_with_all_its_vectors(name, vectors):
    pipe = {"sd": published.sd, "sdxl": published.sdxl, "x4": published.x4}[name]()
    generator = torch.Generator().manual_seed(0)
    for part, reader in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        if (encoder := getattr(pipe, reader, None)) is not None:
            learnt = torch.randn(vectors, encoder.config.hidden_size, generator=generator)
            pipe.load_textual_inversion(learnt, "<toy>", text_encoder=encoder, tokenizer=getattr(pipe, part))
    stage, prompt = families.stage(pipe), "a <toy> on a wall"
    with torch.no_grad():
        assert torch.equal(stage.embed([prompt])["text"], theirs(pipe, prompt)[0])


def test_weights_in_brackets_are_told_to_have_no_effect(stages):
    for stage in stages.values():
        embed = stage.embed
        (note,) = embed(["a (red:1.3) ball"]).notes
        assert note == "weights in brackets, as (red:1.3), have no effect: they are read as text"
        assert not embed(["a (red) ball at 10:30"]).notes
        with pytest.raises(ValueError, match="is not text in UTF-8"):
            embed(["a red \udcff"])


@pytest.fixture(scope="module")
def embedded():
    """Return the tokenizer of the embedded cascade."""
    return sources.open_folder(FOLDER / "stage1").tokenizer


def ids(tokenizer, prompt):
    return tokenizer(prompt.lower().strip()).input_ids


CAPTIONS = st.builds(
    lambda seed, k: caption(Scene.random(seed), k), st.integers(0, 10_000), st.integers(0, TEMPLATES - 1)
)
MARKS = ["", *",.;:!?\"'“”„«()[]{}/|*_#…、。·—~=+<>^`\u2010\u200b\u00ad\ufeff🔵™", "❤️", "👩\u200d🚀"]
SPACES = [" ", "  ", "\n", "\t", "\u00a0", "\u3000", " , ", " - ", "-", "/"]


@QUICK
@example(prompt="a red sphere on a wooden floor, a white wall, light from the left")
@given(prompt=CAPTIONS)
def test_captions_have_the_tokens_that_the_embedded_encoder_was_trained_on(embedded, prompt):
    pieces = embedded.convert_ids_to_tokens(ids(embedded, prompt))
    words = [piece for word in prompt.replace(",", " ,").split() for piece in ([","] if word == "," else [f"▁{word}"])]
    assert pieces == [*words, "</s>"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=CAPTIONS, seed=st.integers(0, 2**32))
def test_marks_and_spaces_change_nothing_that_the_embedded_encoder_reads(embedded, prompt, seed):
    draw = random.Random(seed)

    def typed(word):
        word = draw.choice([word, word.upper(), word.title(), f"({word}:1.3)", f"[{word}]", f"((({word})))"])
        word = draw.choice([word, unicodedata.normalize("NFKD", word), word.translate(WIDE)])
        return draw.choice(MARKS) + word + draw.choice(MARKS)

    words = prompt.replace(",", "").split()
    text = "".join(draw.choice(SPACES) + typed(word) for word in words)
    assert ids(embedded, text) == ids(embedded, prompt)
    assert words_in(text) == words
    assert not [word for word in unknown_words(text) if unicodedata.category(word[0]) != "So"]


WIDE = {k: k + 0xFEE0 for k in range(ord("a"), ord("z") + 1)}


@QUICK
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"], max_codepoint=0x2FFF), max_size=30))
def test_advice_reads_words_as_the_embedded_encoder_does(embedded, text):
    normal = embedded.backend_tokenizer.normalizer.normalize_str(text)
    assert words_in(text) == re.findall(r"[^\s,]+", normal)


def test_an_edit_with_marks_is_the_edit_without(picture):
    """The test uses the prompts of the embedded cascade, at its first stage."""
    cascade = iterinv.load().up_to(32)
    small = torch.nn.functional.interpolate(picture, (32, 32))
    plain, marked = "a red sphere on a wooden floor", "A [red] sphere, on a “wooden” floor."
    pictures = []
    for source, target in ((plain, plain.replace("red", "blue")), (marked, marked.replace("red", "blue"))):
        inversion = cascade.invert(small, source, num_inference_steps=4)
        pictures.append(cascade.edit(inversion, target).pictures[-1])
    assert torch.equal(*pictures)


def test_an_empty_prompt_and_one_of_pictograms_are_prompts(tiny_folder, picture, tmp_path):
    assert checked_prompt("", "prompt") == checked_prompt("  ", "prompt") == ""
    for pictogram in ("🔵", "\U0001fae9", "\U0001fadf", "\ue000"):  # Python's tables may be older than a pictogram
        assert checked_prompt(f" {pictogram} ", "--to", may_be_empty=False) == pictogram
        assert unknown_words(f"{pictogram} sphere") == [pictogram]
    assert unknown_words("🔵 sphere ❤️") == ["🔵", "❤"]
    with pytest.raises(ValueError, match="the target prompt is not text"):
        checked_prompt("\ud800", "target prompt", may_be_empty=False)
    for empty in ("", " \n", "\u200b", "\u200f\u202e", "\x00"):
        with pytest.raises(ValueError, match="the target prompt is empty: describe"):
            checked_prompt(empty, "target prompt", may_be_empty=False)
    Image.fromarray(to_uint8(picture)).save(tmp_path / "a.png")
    arguments = [
        "invert",
        str(tmp_path / "a.png"),
        "-p",
        "",
        "-n",
        "3",
        "--model",
        str(tiny_folder),
        "-o",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["sd", "sdxl", "if"])
def test_threads_read_words_as_one_does(pipes, name):
    """Threads read prompts of all lengths at once, by one stage and by two of the same pipeline."""
    pipe = pipes[name]
    stages = [families.stage(pipe), families.stage(pipe)]
    prompts = ["a red ball", "", "one after another " * 30, "[a]", "a b c d e f", "x"]
    truth = {prompt: stages[0].embed([prompt])["text"] for prompt in prompts}
    wrong, start = [], threading.Barrier(4)

    def work(k):
        start.wait()
        try:
            for j in range(60):
                prompt = prompts[(j * (k + 1) + k) % len(prompts)]
                if not torch.allclose(stages[k % 2].embed([prompt])["text"], truth[prompt], atol=1e-5):
                    wrong.append(prompt)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

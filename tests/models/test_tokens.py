"""The tokens of prompts are those that the encoders read, and each word knows its own."""

import pytest

import published
from iterinv import families
from iterinv.models.text import tokenize, tokens_of


@pytest.fixture(scope="module")
def embedded(tiny):
    return tiny.stages[0].tokens


def test_they_are_those_that_the_encoders_read(embedded):
    pipe = published.sd()
    tokens = families.stage(pipe).tokens("a Red cat")
    assert list(tokens.ids) == tokens_of(pipe.tokenizer, ["a Red cat"], 77, "cpu")[0].input_ids[0].tolist()
    assert len(embedded("a red sphere").ids) == 77
    assert embedded(" A RED sphere ").ids == embedded("a red sphere").ids


def test_a_word_is_all_of_its_tokens_wherever_it_is(embedded):
    letters = families.stage(published.sdxl()).tokens
    tokens = letters("a red cat, red")
    assert tokens.of("red") == tokens.of("RED ") == [2, 3, 4, 9, 10, 11]
    assert [tokens.text[slice(*tokens.spans[k])].strip() for k in tokens.of("red")] == ["r", "e", "d"] * 2
    assert "".join(tokens.text[slice(*tokens.spans[k])] for k in tokens.of("red cat")) == "redcat"
    assert tokens.of("ed") == []  # a part of a word is no word
    assert tokens.words == ["a", "red", "cat"]
    assert embedded("a red sphere on a floor").of("a") == [0, 4]
    assert letters("a red cat").length == 7  # its letters


def test_words_beyond_the_last_token_are_not_read(embedded):
    tokens = embedded("red " * 80 + "sphere")
    assert tokens.of("sphere") == []
    assert tokens.words == ["red"]


def test_common_tokens_are_aligned_and_padding_is_too(embedded):
    old, new = embedded("a red sphere on a floor"), embedded("a large red cube on a floor")
    pairs = old.common(new)
    inside = [(a, b) for a, b in pairs if b < new.length]
    assert inside == [(0, 0), (1, 2), (3, 4), (4, 5), (5, 6)]
    assert (6, 7) in pairs  # the end of the text
    assert (75, 76) in pairs
    assert old.common(old) == [(k, k) for k in range(77)]


def test_a_tokenizer_without_spans_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="a Slow does not say which words its tokens are"):
        tokenize(Slow(), 77, str)("a cat")

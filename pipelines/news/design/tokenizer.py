"""Text to tokens: Unicode words, white space, or Korean morphemes."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from cluster.errors import InputError

# N-grams do not cross it: line breaks in a text, and the seams between a day's texts.
BREAK = "\n"

# A word keeps inner apostrophes and hyphens (don't, follow-up), a cashtag or hashtag its sign.
_WORD = re.compile(r"[$#]?\w+(?:['\-]\w+)*|\n")
_NON_SPACE = re.compile(r"[^\s]+|\n")
# Content morphemes of kiwipiepy: nouns, roots, verbs, adjectives, foreign words, adverbs.
_KOREAN_TAGS = ("NN", "XR", "VV", "VA", "VCN", "SL", "SH", "MAG")

TOKENIZERS = ("word", "whitespace", "korean")

Tokenizer = Callable[[str], list[str]]


def make_tokenizer(name: str) -> Tokenizer:
    """Return the function that turns a text into tokens and :data:`BREAK` marks.

    Text is NFKC-normalised and case-folded first, and apostrophes are made straight, so that
    spellings of one word count as one.

    Raises
    ------
    InputError
        For an unknown name, or ``korean`` without its extra.
    """
    if name == "word":
        return lambda text: _WORD.findall(normalised(text))
    if name == "whitespace":
        return lambda text: _NON_SPACE.findall(normalised(text))
    if name == "korean":
        return _korean_tokenizer()
    raise InputError("--tokenizer", "unknown", expected=" or ".join(TOKENIZERS), got=name)


def normalised(text: str) -> str:
    """Return the text in the form in which words are compared: NFKC, case-folded."""
    return unicodedata.normalize("NFKC", text).casefold().replace("’", "'")


@lru_cache(maxsize=1)
def _korean_tokenizer() -> Tokenizer:
    try:
        from kiwipiepy import Kiwi
    except ImportError as missing:
        raise InputError(
            "--tokenizer korean",
            "kiwipiepy is not installed",
            fix="Run: pip install 'tenfold[korean]' on every node.",
        ) from missing
    kiwi = Kiwi(num_workers=1)

    def tokenize(text: str) -> list[str]:
        tokens: list[str] = []
        for line in normalised(text).split(BREAK):
            if tokens:
                tokens.append(BREAK)
            tokens += [
                token.form + "다" if token.tag.startswith(("VV", "VA")) else token.form
                for token in kiwi.tokenize(line)
                if token.tag.startswith(_KOREAN_TAGS)
            ]
        return tokens

    return tokenize

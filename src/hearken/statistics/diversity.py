"""How varied texts are: what falls when a policy collapses, while its reward and its fluency rise."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+|[^\w\s]")


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text's words and punctuation marks, lower-cased, in order."""
    words = _WORD.findall(text.lower())
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Different n-grams over all n-grams of the texts together (Li et al. 2016), 0..1.

    It falls as the number of texts and their length grow: compare sets of equal size, sampled at one temperature.

    Returns:
        NaN where no text has n words.
    """
    pool = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(pool)) / len(pool) if pool else math.nan


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Share of a text's n-grams that the same text has had before, averaged over texts of n words or more.

    0 where no text repeats itself, near 1 where each is one phrase over and over. Unlike `distinct_n` it does not
    depend on how many texts there are.

    Returns:
        NaN where no text has n words.
    """
    shares = [1 - len(set(grams)) / len(grams) for grams in (ngrams(text, n) for text in texts) if grams]
    return sum(shares) / len(shares) if shares else math.nan

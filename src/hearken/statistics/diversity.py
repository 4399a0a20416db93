"""How varied texts are: what falls when a policy collapses, while its reward and its fluency rise."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

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


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """Mean BLEU of each text against all others (Zhu et al. 2018), 0..1: it rises where texts become alike.

    Precisions of order 2 and more are smoothed by adding one to both counts (Lin and Och 2004), so that short texts
    count. Like `distinct_n` it depends on how many texts there are: compare sets of equal size.

    Args:
        texts: two or more that have words; others are left out.
        n: longest n-grams.

    Returns:
        NaN for fewer than two texts.
    """
    kept = [text for text in texts if ngrams(text, 1)]
    if len(kept) < 2:
        return math.nan
    logs = [0.0] * len(kept)
    for order in range(1, n + 1):
        counts = [Counter(ngrams(text, order)) for text in kept]
        # The most that any other text has: the highest count, or the second where the text itself has the highest.
        top: dict[tuple[str, ...], list[int]] = {}
        for count in counts:
            for gram, times in count.items():
                two = top.setdefault(gram, [0, 0])
                two[:] = sorted((*two, times), reverse=True)[:2]
        for i, count in enumerate(counts):
            found = total = 0 if order == 1 else 1
            for gram, times in count.items():
                highest, second = top[gram]
                found += min(times, second if times == highest else highest)
                total += times
            logs[i] += math.log(found / total) / n if found else -math.inf
    lengths = [len(ngrams(text, 1)) for text in kept]
    scores = []
    for i, (log, length) in enumerate(zip(logs, lengths, strict=True)):
        others = lengths[:i] + lengths[i + 1 :]
        nearest = min(others, key=lambda other: (abs(other - length), other))
        scores.append(math.exp(log + min(0.0, 1 - nearest / length)))
    return sum(scores) / len(scores)


class Phrase(NamedTuple):
    """A phrase with the share of texts that say it, now and before."""

    text: str
    share: float
    before: float


def repeated_phrases(texts: Sequence[str], before: Sequence[str], n: int = 4, top: int = 5) -> list[Phrase]:
    """Phrases of ``n`` words that far more texts say than did before, the most grown first.

    A phrase is named where its share of texts has at least doubled and grown by .05, in two texts or more. Phrases that
    overlap and are said by equally many are one longer phrase.

    Args:
        texts: of the policy.
        before: of the reference, e.g. SFT.
        n: words of a phrase.
        top: at most so many.
    """
    now, then = (Counter(gram for text in some for gram in set(ngrams(text, n))) for some in (texts, before))
    found = [
        Phrase(" ".join(gram), count / len(texts), then[gram] / max(len(before), 1))
        for gram, count in now.items()
        if count > 1
    ]
    grown = [p for p in found if p.share >= 2 * p.before and p.share - p.before >= 0.05]
    return _joined(sorted(grown, key=lambda p: (p.before - p.share, p.text))[: 20 * top], max(n - 1, 1))[:top]


def written(text: str) -> str:
    """A phrase with its marks where they are written: ``the bridge broke, and``."""
    return re.sub(r" (?=[,.;:!?])", "", text)


def _joined(phrases: list[Phrase], least: int) -> list[Phrase]:
    """Pieces of one phrase put together: "once upon a time", not "once upon a" and "upon a time"."""
    found: list[Phrase] = []
    for phrase in phrases:
        for i, other in enumerate(found):
            alike = max(abs(other.share - phrase.share), abs(other.before - phrase.before)) < 0.02
            words, known = phrase.text.split(), other.text.split()
            whole = (_overlapped(known, words, least) or _overlapped(words, known, least)) if alike else []
            if whole:
                found[i] = other._replace(text=" ".join(whole))
                break
        else:
            found.append(phrase)
    return _joined(found, least) if len(found) < len(phrases) else found


def _overlapped(first: list[str], second: list[str], least: int) -> list[str]:
    """``first`` gone on with by ``second``, where the end of one is the beginning of the other for ``least`` words."""
    for at in range(len(first) - least + 1):
        shared = first[at:]
        if shared[: len(second)] == second[: len(shared)]:
            return first[:at] + max(shared, second, key=len)
    return []

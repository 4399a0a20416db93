"""Metric rewards: ``--reward metric:NAME``, the response beside metadata's ``reference`` (a text or several).

The libraries of the field do the measuring: ``pip install 'hearken[metrics]'``. All are scaled to 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from hearken.errors import UserError


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"this metric needs {name}", "Run: pip install 'hearken[metrics]'") from None


def _each(
    responses: list[str], metadata: list[dict[str, Any]], measure: Callable[[str, list[str]], float]
) -> list[float]:
    found = []
    for response, facts in zip(responses, metadata, strict=True):
        references = facts.get("reference") or facts.get("references")
        if not references:
            raise UserError(
                "a prompt's metadata have no 'reference'", 'Give rows like {"prompt": ..., "reference": ...}'
            )
        found.append(measure(response, [references] if isinstance(references, str) else list(references)))
    return found


@lru_cache
def _rouge(kind: str) -> Any:
    return _library("rouge_score.rouge_scorer").RougeScorer([kind], use_stemmer=True)


def _rouge_of(kind: str, responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    scorer = _rouge(kind)
    return _each(responses, metadata, lambda text, refs: max(scorer.score(r, text)[kind].fmeasure for r in refs))


def rouge1(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """ROUGE-1 F (rouge-score), against the nearest reference."""
    return _rouge_of("rouge1", responses, metadata)


def rouge2(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """ROUGE-2 F."""
    return _rouge_of("rouge2", responses, metadata)


def rouge_l(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """ROUGE-L F."""
    return _rouge_of("rougeL", responses, metadata)


def bleu(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Sentence BLEU with effective order (sacrebleu)."""
    sentence = _library("sacrebleu").sentence_bleu
    return _each(responses, metadata, lambda text, refs: sentence(text, refs, use_effective_order=True).score / 100)


def chrf(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Sentence chrF2 (sacrebleu)."""
    sentence = _library("sacrebleu").sentence_chrf
    return _each(responses, metadata, lambda text, refs: sentence(text, refs).score / 100)


class _NoSynonyms:
    """METEOR's word net where none can be downloaded: exact and stemmed matches count, synonyms do not."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """METEOR (nltk) by exact and stemmed matches."""
    score = _library("nltk.translate.meteor_score").meteor_score
    return _each(
        responses, metadata,
        lambda text, refs: score([r.split() for r in refs], text.split(), wordnet=_NoSynonyms()),
    )  # fmt: skip

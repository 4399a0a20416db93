"""Summaries of Reddit posts: written by people (Völske et al., 2017), or compared by them (Stiennon et al., 2020)."""

from __future__ import annotations

from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration, Rating


def demonstration(row: dict[str, Any]) -> Demonstration:
    """A post with its summary, as the filtered TL;DR data has them."""
    known = ("title", "post", "summary", "subreddit")
    return Demonstration(_prompt(row), _summary(row, "summary"), metadata={k: row[k] for k in row if k not in known})


def comparison(row: dict[str, Any]) -> Comparison:
    """A person's choice between two summaries of a post, or of a news article.

    Raises:
        UserError: the row lacks what it needs.
    """
    info, summaries, choice = row["info"], row["summaries"], row["choice"]
    if not isinstance(info, dict):
        raise UserError("'info' must hold the post", 'Write {"title": ..., "post": ...}')
    if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(s, dict) for s in summaries):
        raise UserError("'summaries' must be two objects", 'Write [{"text": ...}, {"text": ...}]')
    if isinstance(choice, bool) or choice not in (0, 1):
        raise UserError("'choice' must be 0 or 1", f"It is {choice!r:.40} here")
    texts = _summary(summaries[0], "text"), _summary(summaries[1], "text")
    metadata = {k: row[k] for k in row if k not in ("info", "summaries", "choice")}
    metadata |= {"id": info["id"]} if info.get("id") is not None else {}
    return Comparison(_prompt(info), texts, (0, 1) if choice == 0 else (1, 0), metadata=metadata)


def rating(row: dict[str, Any]) -> Rating:
    """A summary rated from 1 to 7 on several axes (overall, accuracy, coverage, coherence), as the set has them.

    Raises:
        UserError: the row lacks what it needs.
    """
    info, summary = row["info"], row["summary"]
    axes = summary.get("axes") if isinstance(summary, dict) else None
    if not isinstance(info, dict) or not isinstance(axes, dict):
        raise UserError("'info' must hold the post and 'summary' its text and axes", 'Write {"text": ..., "axes": {}}')
    found = {str(name): value for name, value in axes.items() if value is not None}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in found.values()):
        raise UserError("an axis is no number", "Axes are rated from 1 to 7")
    metadata = {k: row[k] for k in row if k not in ("info", "summary")}
    metadata |= {"policy": summary["policy"]} if summary.get("policy") is not None else {}
    return Rating(_prompt(info), _summary(summary, "text"), found, low=1.0, high=7.0, metadata=metadata)


def _prompt(info: dict[str, Any]) -> str:
    """The prompt of the paper (its appendix B.2), or the article alone where there is no post."""
    body = info.get("post") or info.get("article")
    if not isinstance(body, str) or not body.strip():
        raise UserError("there is no post to sum up", "Fill in 'post', or 'article'")
    head = [("SUBREDDIT", f"r/{info['subreddit']}" if info.get("subreddit") else ""), ("TITLE", info.get("title"))]
    kind = "POST" if info.get("post") else "ARTICLE"
    return "".join(f"{name}: {value}\n\n" for name, value in head if value) + f"{kind}: {body.strip()}\n\nTL;DR:"


def _summary(row: dict[str, Any], column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"'{column}' is no summary", "Fill it in, or leave the row out")
    return f" {text.strip()}"

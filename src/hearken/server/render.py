"""Text of models and people as HTML that can do no harm.

Markdown with raw HTML switched off, then cleaned by an allowlist; the Content-Security-Policy is the second wall.
Images are never loaded: the address of one would tell its server who reads, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

_TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "title", "target"}, "ol": {"start"}, "code": {"class"}, "span": {"class"}}
_CLASSES = {"picture"}


def _picture(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: dict[str, Any]) -> str:
    """Where Markdown asks for an image: its description, in words."""
    words = self.renderInlineAsText(tokens[index].children, options, env)
    return f'<span class="picture">image: {_escape(words) or "no description"}</span>'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _filter(tag: str, name: str, value: str) -> str | None:
    if name != "class":
        return value
    if tag == "code":
        return value if value.startswith("language-") and " " not in value else None
    return value if value in _CLASSES else None


_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_markdown.add_render_rule("image", _picture)


def readable(text: str) -> str:
    """The text without what cannot be sent: NUL and halves of characters, one sign for each."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


@lru_cache(maxsize=4_096)
def to_html(text: str) -> str:
    """Safe HTML of Markdown ``text``: no raw HTML, no images, no attributes but a few; links open elsewhere."""
    return nh3.clean(
        _markdown.render(readable(text)),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        strip_comments=True,
    )

"""What models write can do no harm on a page: a corpus of attacks, through Markdown and through the allowlist."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.server.render import to_html

CORPUS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<body onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    "![x](https://tracker.example/pixel.png)",
    '![x"onerror="alert(1)](https://tracker.example/p.png)',
    '![" onload="alert(1)](x)',
    '[x](https://example.org "onmouseover=alert(1)")',
    '[x](https://example.org"onmouseover="alert(1))',
    "![<img src=x onerror=alert(1)>](x)",
    '```"><script>alert(1)</script>\nx\n```',
    "``` js onload=alert(1)\nx\n```",
    "`<script>alert(1)</script>`",
    "<style>body{display:none}</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action=https://evil.example><input name=password></form>",
    "<object data=x></object><embed src=x>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)></style></mglyph></math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><script>alert(1)</script>-->",
    "<div style='background:url(https://evil.example)'>x</div>",
    "| <script>alert(1)</script> | b |\n| :-- | --: |\n| <img src=x onerror=alert(1)> | d |",
    "[ref]: javascript:alert(1)\n\n[ref]",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<<script>script>alert(1)<</script>/script>",
    "\ud800<script>alert(1)</script>",
    "# <img src=x onerror=alert(1)>",
    "1. <script>alert(1)</script>\n   - <svg/onload=alert(1)>",
    '<a href="https://example.org" onclick="alert(1)">x</a>',
    '<https://example.org/" onclick=alert(1)>',
]

TAGS = set(re.findall(r"\w+", "p br hr strong em s code pre blockquote ul ol li a h1 h2 h3 h4 h5 h6 table thead tbody"))
TAGS |= {"tr", "th", "td", "span"}
ATTRIBUTES = {("a", name) for name in ("href", "title", "target", "rel")} | {
    ("ol", "start"),
    ("code", "class"),
    ("span", "class"),
}


class Inspector(HTMLParser):
    """Reads HTML as a browser would and notes whatever is not harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if (tag, name) not in ATTRIBUTES:
                self.found.append(f"{tag} {name}={value}")
            if name == "href" and not (value or "").startswith(("http://", "https://", "mailto:", "#", "/")):
                scheme = (value or "").split(":")[0]
                if ":" in (value or "") and "/" not in scheme:
                    self.found.append(f"href={value}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")


def harm(text: str) -> list[str]:
    """What a browser would do with a text that it should not."""
    inspector = Inspector()
    inspector.feed(to_html(text))
    return inspector.found


@pytest.mark.parametrize("attack", CORPUS, ids=range(len(CORPUS)))
def test_attacks_come_out_as_words(attack: str) -> None:
    assert harm(attack) == []


@given(st.lists(st.sampled_from([*CORPUS, "\n\n", "> ", "* ", "`", '"', "'", "<", "](", "&#x3c;"]), max_size=6))
@settings(max_examples=150, deadline=None)
def test_attacks_stay_harmless_in_any_order(parts: list[str]) -> None:
    assert harm("".join(parts)) == []


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_out_harmless(text: str) -> None:
    assert harm(text) == []


def test_no_image_is_ever_loaded_but_its_description_is_read() -> None:
    html = to_html("![a *small* fox](https://tracker.example/fox.png)")
    assert "tracker" not in html and "<img" not in html
    assert "image: a small fox" in html


def test_markdown_and_code_look_as_they_should() -> None:
    html = to_html("**Yes.**\n\n```python\nprint('<b>')\n```\n\n| a | b |\n| - | - |\n| 1 | ~~2~~ |")
    assert "<strong>Yes.</strong>" in html
    assert "<code class=\"language-python\">print('&lt;b&gt;')" in html
    assert "<table>" in html and "<s>2</s>" in html


def test_links_open_elsewhere_and_say_nothing_about_where_they_stood() -> None:
    html = to_html("[there](https://example.org)")
    assert 'rel="noopener noreferrer nofollow"' in html and 'target="_blank"' in html

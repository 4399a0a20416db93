"""What models write can do no harm on a page: a corpus of attacks, through Markdown and through the allowlist."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken import server
from hearken.server.render import as_written, to_html

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
    r"$\text{<script>alert(1)</script>}$ $\href{javascript:alert(1)}{x}$ $\style{color:red}{x}$ $\class{a}{x}$",
    r"\[\text{<img src=x onerror=alert(1)>}\] $<script>alert(1)</script>$ \(\mathrm{<svg/onload=alert(1)>}\)",
    "```</code></pre><script>alert(1)</script>\nx\n```",
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

TAGS = set(
    re.findall(r"\w+", "p br strong em s code pre blockquote ul ol li a h1 h2 h3 h4 h5 h6 table thead tbody div")
)
TAGS |= {"tr", "th", "td", "span"}
DRAWN = set(
    re.findall(
        r"\w+", "math semantics annotation mrow mi mn mo mtext mspace mstyle msqrt mroot mfrac msub msup msubsup"
    )
) | {"munder", "mover", "munderover", "mtable", "mtr", "mtd"}
ANYWHERE = {"class", "dir", "title", "aria-hidden", "colspan"}
OF_FORMULAS = set(
    re.findall(
        r"\w+",
        "display encoding width mathvariant class stretchy fence form movablelimits minsize maxsize displaystyle "
        "scriptlevel linethickness",
    )
)


class Inspector(HTMLParser):
    """Reads HTML as a browser would and notes whatever is not harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS | DRAWN:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            link = tag == "a" and name in ("href", "target", "rel")
            if not link and name not in (OF_FORMULAS if tag in DRAWN else ANYWHERE):
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


def test_no_image_is_ever_loaded_but_its_description_and_address_are_read() -> None:
    html = to_html("![a *small* fox](https://tracker.example/fox.png)")
    assert "<img" not in html and "href" not in html and "src" not in html
    assert read(html) == "![a *small* fox](https://tracker.example/fox.png)"


def test_markdown_and_code_look_as_they_should() -> None:
    html = to_html("**Yes.**\n\n```python\nprint('<b>')\n```\n\n| a | b |\n| - | - |\n| 1 | ~~2~~ |")
    assert "<strong>Yes.</strong>" in html
    assert '<code class="language-python"><span class="name">print</span>(' in html and "&lt;b&gt;" in html
    assert "<table>" in html and "<s>2</s>" in html


def test_code_is_coloured_line_by_line_also_in_a_quote() -> None:
    quoted = "> ```python\n> def f(x, y):\n>     return x + 1  # one\n> ```"
    html = to_html(f"{quoted}\n\n```nonsense\na b\n```\n\n    in dented\n      code")
    assert "<blockquote><pre" in html
    assert '<span class="keyword">return</span> x + <span class="number">1</span>' in html
    assert '<span class="comment"># one</span>' in html and '<code class="language-nonsense">a b\n</code>' in html
    assert "<code>    in dented\n      code\n</code>" in html and 'class="plain"' not in html


def test_links_open_elsewhere_and_say_nothing_about_where_they_stood() -> None:
    html = to_html("[there](https://example.org)")
    assert 'rel="noopener noreferrer nofollow"' in html and 'target="_blank"' in html


# -- different texts look different ------------------------------------------------------------------------------

SIGNS = {"␣": " ", "⇥": "\t", "↵": "\n", "␍": "\r", "⍽": "\u00a0", "⎵": "\u202f", "⬚": "\u3000"}
BLOCKS = {"p", "div", "li", "pre", "table", "tr", "blockquote", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "br"}


class Sight(HTMLParser):
    """What the page shows, with signs taken for what they stand for, and drawn formulas for their source."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._in: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "br":
            self._in.append("sign" if ("class", "sign") in attrs else tag)

    def handle_endtag(self, tag: str) -> None:
        self._in.pop()

    def handle_data(self, data: str) -> None:
        if self._in and self._in[-1] == "sign":
            for number, char in re.findall(r"⟨U\+([0-9A-F]+)⟩|(.)", data):
                self.text += chr(int(number, 16)) if number else SIGNS[char]
        elif "math" not in self._in or "annotation" in self._in:
            self.text += data


def read(html: str) -> str:
    """Every character that a page shows, in order."""
    sight = Sight()
    sight.feed(html)
    return sight.text.strip("\n") if sight.text.strip("\n") else sight.text


def words(text: str) -> str:
    """A text without the white space that Markdown may take for structure."""
    return re.sub("[ \t\n]+", "", text)


PIECES = [
    "a", "Ab", "7", " ", "  ", "\n", "\n\n", "\t", "\\", "*", "**", "_", "__", "~~", "`", "``", "```", "~~~", "#",
    "## ", "- ", "* ", "+ ", "1. ", "7) ", "03. ", "> ", "| ", "|-|-|\n", "| a | b |\n", "---", "===", "$", "$$",
    "\\(", "\\)", "\\[", "\\]", "[", "]", "](", "](http://a.example)", "[1]: /b", "![", "<", ">", "<b>", "</b>",
    "<!--", "&amp;", "&#65;", "&copy;", "<http://a.example/%20>", "\u200b", "\u202e", "\u00a0", "\u0000", "\ud800",
    "␣", "↵", "⟨U+200B⟩", "é", "اب", "\\frac{1}{2}", "x^2", "\\begin{align}", "\\end{align}", "    code", "python\n",
    "\\\n", "  \n", "&", "\\|", "\\$", "%", "\ufeff", "\u2028",
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.text(max_size=60))


@pytest.mark.slow
@given(TEXTS)
@settings(max_examples=600, deadline=None)
def test_every_character_is_shown_in_its_place(text: str) -> None:
    """So two texts that differ in more than white space are never shown alike."""
    text = text.replace("\r", "")
    assert words(read(to_html(text))) == words(text)
    assert harm(text) == []


@given(st.lists(st.sampled_from(["a", "b", " ", "  ", "\n", "\n\n", "\t"]), max_size=8).map("".join))
@settings(max_examples=300, deadline=None)
def test_as_written_is_as_written(text: str) -> None:
    shown = Sight()
    shown.feed(as_written(text).replace("\n", ""))
    assert shown.text == text


ALIKE = [
    ("caf\u00e9", "cafe\u0301"), ("p\u0430ypal", "paypal"), ("\u212a", "K"), ("\u304c", "\u304b\u3099"),
    (r"So \(x\) is \[y\].", "So (x) is [y]."), (r"\(x\)", "$x$"), (r"$x_1$", r"$x^1$"), ("$5 and $10", "5 and 10"),
    ("3. a\n5. b\n9. c", "3. a\n4. b\n5. c"), ("1. a", "1) a"), ("01. a", "1. a"), ("- a", "* a"), ("- a", "a"),
    ("[1]: https://a.example\n\nHello", "Hello"), ("[a][1]\n\n[1]: /b", "[a](/b)"), ("[a](/b)", "[a](/c)"),
    ('[a](/b "t")', "[a](/b)"), ("one \\\\ two", "one \\ two"), (r"\*a\*", "*a*"), (r"a\_b", "a_b"),
    ("roses\nviolets", "roses violets"), ("roses  \nviolets", "roses\nviolets"),
    ("roses\\\nviolets", "roses  \nviolets"), ("a", "a "), (" a", "a"), ("a  b", "a b"), ("a\tb", "a b"),
    ("a\n", "a"), ("a\n\n\nb", "a\n\nb"), ("", " "), ("&amp;", "&"), ("&#65;", "A"), ("&lt;b&gt;", "<b>"),
    ("<b>a</b>", "a"), ("<!-- a -->", ""), ("a<br>b", "a\nb"), ("**a**", "a"), ("**a**", "__a__"), ("*a*", "_a_"),
    ("~~a~~", "a"), ("# a", "a"), ("# a", "## a"), ("# a #", "# a"), ("a\n=", "# a"), ("> a", "a"),
    ("> a\n> b", "> a\nb"), ("`a`", "a"), ("``a``", "`a`"), ("` a `", "`a`"), ("```\na\n```", "a"),
    ("```\na\n```", "~~~\na\n~~~"), ("```py\na\n```", "```\na\n```"), ("```\na", "```\na\n```"),
    ("```\na \n```", "```\na\n```"), ("```\n\ta\n```", "```\n        a\n```"), ("---", "***"), ("---", ""),
    ("|a|b|\n|-|-|\n|1|2|3|", "|a|b|\n|-|-|\n|1|2|"), ("|a|b|\n|-|-|\n|1|", "|a|b|\n|-|-|\n|1| |"),
    ("|a|\n|-|\n|b|", "|a|\n|:-|\n|b|"), ("![a](/b)", "![a](/c)"), ("![](/b)", ""), ("a\u200bb", "ab"),
    ("a\u202eb", "ab"), ("a\u00adb", "ab"), ("a\u00a0b", "a b"), ("a\u2009b", "a b"), ("a\ufeff", "a"),
    ("a\u0007", "a"), ("a\u0000", "a\ufffd"), ("a\u3164", "a"), ("a\u200b", "a⟨U+200B⟩"), ("a  b", "a␣␣b"),
    ("a\ud800", "a?"), ("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("\u2066a\u2069", "a"),
    ("\\begin{align}a\\end{align}", "a"), ("$a % b$", "$a$"), (r"$\phantom{a}b$", "$b$"),
    (r"$\color{white}{a}$", "$a$"), ("<https://a.example>", "https://a.example"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=range(len(ALIKE)))
def test_what_differs_looks_different(one: str, other: str) -> None:
    """By the tags taken off, spaces and line breaks made one: harsher than any browser."""

    def bare(text: str) -> str:
        return " ".join(unescape(re.sub(r"<[^>]+>", "", to_html(text))).split())

    assert bare(one) != bare(other)


@pytest.mark.slow
def test_a_browser_shows_what_differs_differently(chromium: Any) -> None:
    """The same pairs by what Chromium lays out, where an annotation is not seen."""
    style = (Path(server.__file__).parent / "static" / "base.css").read_text()
    context = chromium.new_context()
    page = context.new_page()

    def lines(texts: Iterable[str]) -> list[str]:
        cells = "".join(f'<section class="text">{to_html(text)}</section>' for text in texts)
        page.set_content(f"<!doctype html><style>{style}</style>{cells}")
        found: list[str] = page.evaluate("[...document.querySelectorAll('section')].map((one) => one.innerText)")
        return found

    def picture(text: str) -> bytes:
        lines([text])
        found: bytes = page.locator("section").screenshot()
        return found

    one, other = lines(a for a, _ in ALIKE), lines(b for _, b in ALIKE)
    same = [pair for pair, a, b in zip(ALIKE, one, other, strict=True) if a == b]
    assert [pair for pair in same if picture(pair[0]) == picture(pair[1])] == []
    context.close()


def test_formulas_are_drawn_between_their_delimiters() -> None:
    html = to_html(r"So $\frac{a}{b}$ and \(x^2\), \[\sum_i i\] and $$\sqrt{2}$$ but $5 and $10, \$3 and `$x$`.")
    assert html.count("<math") == 4 and html.count('display="block"') == 2
    assert "<mfrac>" in html and "<msup>" in html and "<msqrt>" in html


@pytest.mark.parametrize(
    "prose", ["$5 and $10", "US$5 or A$6", "$5 (about €4.50), not 6$", "a 5$ b 6$ c", "$HOME and $PATH", "$ x $"]
)
def test_prices_are_no_formulas(prose: str) -> None:
    assert "<math" not in to_html(prose)


def test_formulas_over_several_lines_are_no_lists() -> None:
    html = to_html("$$\na\n- b\n+ c\n$$\n\n\\begin{align}\nx &= 1 \\\\\ny &= 2\n\\end{align}")
    assert html.count("<math") == 2 and "<li" not in html and "<mtable" in html


@pytest.mark.parametrize(
    "formula", [r"\unknown{x}", r"\frac{1", "{", r"\phantom{x}", r"\color{white}x", r"\cancel{x}", "a % b"]
)
def test_what_cannot_be_drawn_is_shown_as_written(formula: str) -> None:
    html = to_html(f"So ${formula}$.")
    assert "<math" not in html and read(html) == f"So ${formula}$."


def test_alphabets_of_formulas_are_letters() -> None:
    assert "<mi>𝐱</mi>" in to_html(r"$\mathbf{x}$") and "<mi>ℝ</mi>" in to_html(r"$\mathbb{R}$")
    assert "<mi>ℎ</mi>" in to_html(r"$\mathit{h}$") and "<mi>𝜶</mi>" in to_html(r"$\boldsymbol{\alpha}$")


def test_lists_count_as_written_and_every_paragraph_has_its_direction() -> None:
    html = to_html("3. שלום\n5. hello\n\n> مرحبا\n\n```\nx\n```")
    assert html.count('<li dir="auto">') == 2 and '<span class="marker">5.</span>' in html
    assert '<p dir="auto"><span class="markup">&gt;</span> مرحبا' in html and '<pre dir="ltr">' in html


def test_words_of_other_scripts_are_left_alone() -> None:
    text = "привет, сорока; καλημέρα; café; ज़मीन; שָׁלוֹם; 5 µm, πr, Δx; ệ; が"
    assert read(to_html(text)) == text and 'class="sign"' not in to_html(text)


def test_joiners_that_do_their_work_are_left_alone() -> None:
    assert read(to_html("👨‍👩‍👧 ❤️ می‌خواهم क्‍ष 5️⃣")) == "👨‍👩‍👧 ❤️ می‌خواهم क्‍ष 5️⃣"
    assert 'class="sign"' not in to_html("👨‍👩‍👧 ❤️ می‌خواهم क्‍ष 5️⃣")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["\\(" * 20_000, "$" * 50_000, "[" * 20_000, "`" * 1_000 + "a" * 100_000, "> " * 20_000, "| a " * 10_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    start = process_time()
    assert words(read(to_html(text))) == words(text)
    assert process_time() - start < 10

"""Text of models and people as HTML that can do no harm, and in which two different texts never look the same.

Markdown lends its looks and nothing more: what stands in the source stands on the page, in its order. Markers that
Markdown would swallow (asterisks, numbers, addresses, pipes, fences) are shown faintly in their places, characters that
nobody sees have signs (`signs`), formulas are drawn between their delimiters (`formula`). What cannot be shown so is
shown as written. Only this white space is not told apart: the indentation that puts a line into a list, a quote or a
cell; one blank line between two blocks, or none where they are two without it; spaces around the markers of a heading,
a list or a quote.

Raw HTML is text, images are never loaded (the address of one would tell its server who reads, and when); an allowlist
cleans the result, and the Content-Security-Policy is the second wall.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.link import link
from markdown_it.token import Token

from hearken.server import formula, signs
from hearken.server.signs import show, sign, spaces

LONGEST = 200_000
"""Characters of a text that is read as Markdown; a longer one is shown as written."""

LONGEST_CODE = 20_000
"""Characters of a piece of code that is coloured."""

_DIRECTED = ("p", "li", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6")
_TAGS = {
    *_DIRECTED, "br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "a", "table", "thead", "tbody",
    "tr", "span", "div",
}  # fmt: skip
_ATTRIBUTES: dict[str, set[str]] = {tag: {"dir"} for tag in _DIRECTED} | {
    "a": {"href"}, "code": {"class"}, "span": {"class", "title", "aria-hidden", "dir"}, "div": {"class"},
    "pre": {"dir"}, "p": {"dir", "class"}, "td": {"dir", "class", "colspan"}, "th": {"dir", "class"},
}  # fmt: skip
_CLASSES = {
    "sign", "markup", "marker", "picture", "formula", "plain", "blank", "rule", "end", "middle",
    "keyword", "name", "string", "number", "comment", "gone", "new", *formula.CLASSES,
}  # fmt: skip
_COLOURS = (
    ("Token.Comment", "comment"), ("Token.Keyword", "keyword"), ("Token.Operator.Word", "keyword"),
    ("Token.Literal.String", "string"), ("Token.Literal.Number", "number"), ("Token.Name.Function", "name"),
    ("Token.Name.Class", "name"), ("Token.Name.Builtin", "name"), ("Token.Name.Decorator", "name"),
    ("Token.Name.Tag", "keyword"), ("Token.Name.Attribute", "name"), ("Token.Generic.Deleted", "gone"),
    ("Token.Generic.Inserted", "new"),
)  # fmt: skip


def readable(text: str) -> str:
    """The text without what cannot be sent: NUL and halves of characters, one sign for each."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


@lru_cache(maxsize=4_096)
def to_html(text: str) -> str:
    """Safe HTML of Markdown ``text``: no raw HTML, no images, no attributes but a few; links open elsewhere."""
    note = ""
    if "\r" in text and not re.search("(?<!\r)\n|\r(?!\n)", text):
        text, note = text.replace("\r\n", "\n"), f'<p class="blank">{sign("␍↵ end every line")}</p>'
    if "\r" in text or len(text) > LONGEST:
        return _cleaned(as_written(text))
    return _cleaned(_rendered(text) + note)


@lru_cache(maxsize=4_096)
def as_written(text: str) -> str:
    """Safe HTML of a text just as it is written."""
    return f'<div class="plain">{signs.written(text)}</div>'


def _cleaned(html: str) -> str:
    return nh3.clean(
        html,
        tags=_TAGS | formula.TAGS,
        attributes=_ATTRIBUTES | formula.ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        strip_comments=True,
    )


def _filter(tag: str, name: str, value: str) -> str | None:
    if name != "class" or (tag == "code" and re.fullmatch("language-[^ ]*", value)):
        return value
    return value if value in _CLASSES else None


# -- what Markdown makes of it -----------------------------------------------------------------------------------


def _link(state: StateInline, silent: bool) -> bool:
    """A link that remembers how its address is written."""
    start = state.pos
    if not link(state, silent):
        return False
    if not silent:
        state.tokens[-1].meta["rest"] = state.src[state.md.helpers.parseLinkLabel(state, start, True) : state.pos]
    return True


_OPENINGS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}


def _formula(state: StateInline, silent: bool) -> bool:
    r"""``$...$``, ``$$...$$``, ``\(...\)`` and ``\[...\]`` within a paragraph."""
    source, start = state.src, state.pos
    opening = next((one for one in _OPENINGS if source.startswith(one, start)), None)
    if opening is None:
        return False
    closing, begin = _OPENINGS[opening], start + len(opening)
    end = source.find(closing, begin, min(state.posMax, begin + formula.LONGEST))
    while end > 0 and source[end - 1] == "\\" and closing[0] == "$":  # \$ is a dollar
        end = source.find(closing, end + 1, min(state.posMax, begin + formula.LONGEST))
    if end < begin or not source[begin:end].strip() or (opening == "$" and not _is_formula(source, begin, end)):
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup, token.info = source[begin:end], opening, closing
    state.pos = end + len(closing)
    return True


def _is_formula(source: str, begin: int, end: int) -> bool:
    """Whether two dollars enclose a formula, and are no prices: TeX's own rule, and no words after a number."""
    inside = source[begin:end]
    if inside[0].isspace() or inside[-1].isspace() or "\n" in inside or source[end + 1 : end + 2].isdigit():
        return False
    return not (inside[0].isdigit() and re.search(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])", inside))


def _formula_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""``$$...$$``, ``\[...\]`` and ``\begin{...}...\end{...}`` on lines of their own."""
    first = _line(state, start)
    named = re.match(r"\\begin\{([A-Za-z]+\*?)\}", first)
    opening = named[0] if named else first[:2]
    closing = f"\\end{{{named[1]}}}" if named else {"$$": "$$", "\\[": "\\]"}.get(opening)
    if closing is None or state.is_code_block(start):
        return False
    for number in range(start, end):
        line = _line(state, number)
        if not line or (number > start and state.sCount[number] < state.blkIndent):
            return False
        rest = line[len(opening) :] if number == start else line
        if closing in rest:
            if not rest.endswith(closing) or rest.count(closing) > 1:
                return False
            break
    else:
        return False
    if not silent:
        token = state.push("formula_block", "", 0)
        whole = state.getLines(start, number + 1, state.blkIndent, False).strip()
        token.map = [start, number + 1]
        token.markup, token.info = ("", "") if named else (opening, closing)
        token.content = whole[len(token.markup) : len(whole) - len(token.info)]
        state.line = number + 1
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].strip(" \t")


_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_markdown.disable(["normalize", "reference", "text_join"])  # these change the source, or let a part of it vanish
_markdown.inline.ruler.at("link", _link)
_markdown.inline.ruler.before("escape", "formula", _formula)
_markdown.block.ruler.before(
    "fence", "formula", _formula_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
)


# -- the page ----------------------------------------------------------------------------------------------------


def _rendered(text: str) -> str:
    """All blocks of a text, and the blank lines between them that are more than one."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    out: list[str] = []
    done = 0
    for tokens in _blocks(_markdown.parse(text)):
        assert tokens[0].map is not None
        first, last = tokens[0].map
        while last > first and not lines[last - 1].strip(" \t"):
            last -= 1
        out.append(_blank(lines[done:first], between=done > 0))
        writer = _Writer(text, starts, first, last)
        try:
            writer.blocks(tokens)
            writer.finish(last)
            out += writer.out
        except _Lost:
            out.append(as_written("\n".join(lines[first:last])))
        done = last
    # The text ends with its last line: what follows are line ends, and perhaps spaces.
    rest = lines[done:]
    if done and rest:
        out.append(f'<p class="blank">{sign(signs.SIGNS[chr(10)])}{_signed(rest)}</p>')
    elif any(rest) or len(rest) > 1:
        out.append(f'<p class="blank">{_signed(rest)}</p>')
    return "".join(out)


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each block that stands in no other one."""
    block: list[Token] = []
    depth = 0
    for token in tokens:
        block.append(token)
        depth += token.nesting
        if depth == 0:
            yield block
            block = []


def _blank(lines: Sequence[str], between: bool) -> str:
    """Lines without words, but for the one that sets two blocks apart."""
    if between and "" in lines:
        lines = list(lines)
        lines.remove("")
    return f'<p class="blank">{_signed([*lines, ""])}</p>' if lines else ""


def _signed(lines: Sequence[str]) -> str:
    return sign(signs.SIGNS["\n"]).join(spaces(line) if not line.strip(" \t") else _markup(line) for line in lines)


class _Lost(Exception):
    """Something is not found in the source where it should stand."""


_WORD = re.compile(r"[^ \t\n]+")


class _Writer:
    """Writes a block. What is written advances through the source, and what was passed over is shown as markup.

    Args:
        source: the whole text.
        starts: where its lines start.
        first: the block's first line.
        last: the line after it.
    """

    def __init__(self, source: str, starts: Sequence[int], first: int, last: int) -> None:
        self.out: list[str] = []
        self._source, self._starts = source, starts
        self._at, self._end = starts[first], starts[last] - 1
        self._depth = 0  # lists and quotes around
        self._fresh = True  # nothing was written of this paragraph: what comes before its first word is structure
        self._row = False  # in a table

    # -- through the source --------------------------------------------------------------------------------------

    def words(self, text: str) -> None:
        """What is to be read."""
        for word in _WORD.findall(text):
            self._go_to(word)
            self.out.append(show(word))

    def markup(self, text: str) -> None:
        """What Markdown would swallow."""
        for word in _WORD.findall(text):
            self._go_to(word)
            self.out.append(_markup(word))

    def pass_over(self, text: str) -> None:
        """What is shown otherwise."""
        for word in _WORD.findall(text):
            self._go_to(word, silent=True)

    def _go_to(self, word: str, silent: bool = False) -> None:
        found = self._find(word)
        gap = self._source[self._at : found]
        self._at = found + len(word)
        if silent and not gap.strip(" \t\n"):
            return
        self.out.append(" " if gap == " " and not self._fresh else self._between(gap))
        self._fresh = False

    def _find(self, word: str) -> int:
        found = self._source.find(word, self._at, self._end)
        if found < 0:
            raise _Lost
        return found

    def _between(self, gap: str) -> str:
        """HTML of what lies between two words."""
        *lines, last = gap.split("\n")
        if self._fresh:
            found = [_markup(line.strip(" \t")) + " " for line in [*lines, last] if line.strip(" \t")]
            return "".join(found) or (spaces(last) if self._depth == 0 else "")
        if not lines:
            return self._inside(last)
        found = [self._tail(lines[0]), *(_markup(line.strip(" \t")) for line in lines[1:])]
        before = _markup(last.strip(" \t")) + " " if last.strip(" \t") else spaces(last) if self._depth == 0 else ""
        return f"{sign(signs.SIGNS[chr(10)])}<br>".join([*found, before])

    def _inside(self, gap: str) -> str:
        """The same within a line."""
        if not gap.strip(" \t"):
            return gap if gap == " " or not gap else " " if self._row else spaces(gap)
        left, right = gap[: len(gap) - len(gap.lstrip(" \t"))], gap[len(gap.rstrip(" \t")) :]
        return self._inside(left) + _markup(gap.strip(" \t")) + self._inside(right)

    def _tail(self, gap: str) -> str:
        """The same up to the end of a line, where spaces are not seen."""
        end = gap[len(gap.rstrip(" \t")) :]
        return self._inside(gap[: len(gap) - len(end)]) + spaces(end)

    def finish(self, line: int) -> None:
        """The rest of a paragraph, up to the end of the last line before ``line`` that has words."""
        while line > 1 and not self._source[self._starts[line - 1] : self._starts[line] - 1].strip(" \t"):
            line -= 1
        stop = self._starts[line] - 1
        if stop <= self._at:
            return
        *lines, last = self._source[self._at : stop].split("\n")
        self._at = stop
        if lines:
            self.out.append(self._between("\n".join([*lines, ""])))
        body = last.rstrip(" \t")
        self.out.append(
            (_markup(body.strip(" \t")) if self._fresh or lines else self._inside(body)) + spaces(last[len(body) :])
        )

    # -- blocks --------------------------------------------------------------------------------------------------

    def blocks(self, tokens: Sequence[Token]) -> None:
        """All blocks; see the class."""
        stops: list[int] = []
        for index, token in enumerate(tokens):
            match token.type:
                case "inline":
                    self._inline(token.children or [])
                case "paragraph_open" | "heading_open":
                    assert token.map is not None
                    stops.append(token.map[1])
                    self._fresh = True
                    self.out.append("" if token.hidden else f'<{token.tag} dir="auto">')
                case "paragraph_close" | "heading_close":
                    self.finish(stops.pop())
                    self.out.append("" if token.hidden else f"</{token.tag}>\n")
                case "bullet_list_open" | "ordered_list_open" | "blockquote_open":
                    assert token.map is not None
                    stops.append(token.map[1])
                    self._depth += 1
                    self.out.append(f"<{token.tag}>")
                case "bullet_list_close" | "ordered_list_close" | "blockquote_close":
                    self.finish(stops.pop())
                    self._depth -= 1
                    self.out.append(f"</{token.tag}>\n")
                case "list_item_open":
                    assert token.map is not None
                    stops.append(token.map[1])
                    self._item(token.info + token.markup)
                case "list_item_close":
                    self.finish(stops.pop())
                    self.out.append("</li>\n")
                case "fence" | "code_block":
                    self._code(token)
                case "formula_block":
                    self._drawn(token, "div")
                case "hr":
                    assert token.map is not None
                    self._fresh = True
                    self.out.append('<p class="rule">')
                    self.finish(token.map[1])
                    self.out.append("</p>")
                case "table_open":
                    assert token.map is not None
                    stops.append(token.map[0])
                    self.out.append("<table>")
                case "table_close":
                    stops.pop()
                    self.out.append("</table>")
                case "thead_open" | "tbody_open" | "tbody_close":
                    self.out.append(f"<{token.tag}>" if token.nesting > 0 else f"</{token.tag}>")
                case "thead_close":
                    self._ruler(stops, tokens)
                case "tr_open":
                    stops[-1] += 1
                    self._row = self._fresh = True
                    self.out.append("<tr>")
                case "tr_close":
                    self._row = False
                    self.out.append("</tr>\n")
                case "th_open" | "td_open":
                    self._cell(token, tokens[index - 1].type != "tr_open")
                case "th_close" | "td_close":
                    if tokens[index + 1].type == "tr_close":
                        self.finish(stops[-1])
                    self.out.append(f"</{token.tag}>")
                case _:
                    raise _Lost

    def _item(self, marker: str) -> None:
        self.out.append('<li dir="auto"><span class="marker">')
        self._fresh = True
        self.words(marker)
        self.out.append("</span> ")

    def _cell(self, token: Token, further: bool) -> None:
        aligned = {"text-align:right": "end", "text-align:center": "middle"}.get(str(token.attrs.get("style")))
        self.out.append(f'<{token.tag} dir="auto"' + (f' class="{aligned}">' if aligned else ">"))
        if further and self._source[self._at : self._end].lstrip(" \t").startswith("|"):
            self.markup("|")

    def _ruler(self, stops: list[int], tokens: Sequence[Token]) -> None:
        """A table's second line, which says where its columns are."""
        stops[-1] += 1
        columns = sum(token.type == "th_open" for token in tokens)
        self._fresh = True
        self.out.append(f'<tr><td class="rule" colspan="{columns}">')
        self.finish(stops[-1])
        self.out.append("</td></tr>\n</thead>")

    def _code(self, token: Token) -> None:
        assert token.map is not None
        first, last = token.map
        fenced = token.type == "fence"
        language = token.info.split()[0] if token.info.split() else ""
        named = f' class="language-{language}"' if re.fullmatch("[A-Za-z0-9_+#.-]{1,40}", language) else ""
        self._fresh = True
        self.out.append('<pre dir="ltr">')
        if fenced:
            self.finish(first + 1)
            self.out.append("\n")
        self.out.append(f"<code{named}>")
        content = token.content.removesuffix("\n")
        for line in _by_line(_coloured(content, language)):
            if not fenced and line:
                self.out.append("    ")
            self._code_line(line)
            self.out.append("\n")
        self.out.append("</code>")
        self._fresh = True
        self.finish(last)
        self.out.append("</pre>\n")

    def _code_line(self, pieces: Sequence[tuple[str, str]]) -> None:
        line = "".join(text for _, text in pieces)
        ends = len(line.rstrip(" \t"))
        at = 0
        if ends:
            found = self._find(_WORD.findall(line)[0])
            if gap := self._source[self._at : found].strip(" \t\n"):
                self.out.append(_markup(gap) + " ")
            self._at = found
        for colour, text in pieces:
            text = text[: max(ends - at, 0)]
            at += len(text)
            opened = False
            for part in re.findall(r"[ \t]+|[^ \t]+", text):
                if part[0] in " \t":
                    self._at += len(part) if self._source.startswith(part, self._at) else 0
                    self.out.append("".join(sign(signs.SIGNS[char]) + char if char == "\t" else char for char in part))
                    continue
                found = self._find(part)
                if self._source[self._at : found].strip(" \t"):
                    raise _Lost
                self._at = found + len(part)
                if colour and not opened:
                    self.out.append(f'<span class="{colour}">')
                    opened = True
                self.out.append(show(part))
            if opened:
                self.out.append("</span>")
        self.out.append(spaces(line[ends:]))

    # -- within a paragraph --------------------------------------------------------------------------------------

    def _inline(self, tokens: Sequence[Token]) -> None:
        address = False  # <https://...>, which Markdown decodes
        for token in tokens:
            match token.type:
                case "text":
                    self.words(token.content if not address else self._source[self._at : self._find(">")])
                case "text_special":
                    escaped = token.info == "escape"
                    self.markup("\\" if escaped else "")
                    self.words(token.markup[1:] if escaped else token.markup)
                case "softbreak" | "hardbreak":
                    pass  # the source has them
                case "code_inline":
                    self.markup(token.markup)
                    self.out.append("<code>")
                    self.words(token.content)
                    self.out.append("</code>")
                    self.markup(token.markup)
                case "em_open" | "strong_open" | "s_open":
                    self.markup(token.markup)
                    self.out.append(f"<{token.tag}>")
                case "em_close" | "strong_close" | "s_close":
                    self.out.append(f"</{token.tag}>")
                    self.markup(token.markup)
                case "link_open":
                    self.markup("<" if token.markup == "autolink" else "[")
                    self.out.append(f'<a href="{signs.escape(str(token.attrs["href"]))}">')
                    address = token.markup == "autolink"
                case "link_close":
                    self.out.append("</a>")
                    address = False
                    self.markup(">" if token.markup == "autolink" else token.meta["rest"])
                case "image":
                    self.markup("![")
                    self.out.append('<span class="picture">')
                    self.words(token.content)
                    self.out.append("</span>")
                case "formula":
                    self._drawn(token, "span")
                case _:
                    raise _Lost

    def _drawn(self, token: Token, tag: str) -> None:
        """A formula between its delimiters, or as it is written."""
        display = tag == "div" or token.markup in ("$$", "\\[")
        drawn = formula.to_mathml(token.content, display)
        if tag == "div":
            self._fresh = True
            self.out.append('<div class="formula">')
        self.markup(token.markup)
        self.out.append("" if tag == "div" else '<span class="formula">')
        if drawn is None:
            self.words(token.content)
        else:
            self.pass_over(token.content)
            self.out.append(drawn)
        self.out.append("" if tag == "div" else "</span>")
        self.markup(token.info)
        self.out.append("</div>\n" if tag == "div" else "")


def _markup(text: str) -> str:
    """HTML of what Markdown would swallow."""
    if not text:
        return ""
    parts = re.split(r"([ \t]{2,}|\t)", text)
    whole = "".join(spaces(part) if index % 2 else show(part) for index, part in enumerate(parts))
    # Letters of an address must not decide the direction of the paragraph in which it stands.
    ltr = ' dir="ltr"' if any(char.isalpha() for char in text) else ""
    return f'<span class="markup"{ltr}>{whole}</span>'


def _coloured(code: str, language: str) -> list[tuple[str, str]]:
    """Pieces of code, and the class of each; one piece where the language is not known."""
    plain = [("", code)]
    if not language or len(code) > LONGEST_CODE:
        return plain
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language.strip("{}.").lower())
    except ClassNotFound:
        return plain
    found = [(_colour(str(kind)), value) for _, kind, value in lexer.get_tokens_unprocessed(code)]
    return found if "".join(value for _, value in found) == code else plain


def _colour(kind: str) -> str:
    return next((colour for name, colour in _COLOURS if kind.startswith(name)), "")


def _by_line(pieces: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    line: list[tuple[str, str]] = []
    for colour, text in pieces:
        head, *further = text.split("\n")
        line.append((colour, head))
        for one in further:
            yield line
            line = [(colour, one)]
    yield line

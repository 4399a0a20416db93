"""LaTeX formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from xml.etree.ElementTree import Element

from hearken.server.signs import escape, is_plain

LONGEST = 2_000
"""Characters of a formula that is drawn."""

_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "mroot": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
_ANY = {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "msqrt", "mtable", "mtr", "mtd"}
TAGS = frozenset({*_CHILDREN, *_ANY, "semantics", "annotation"})
ATTRIBUTES = {
    "math": {"display"}, "annotation": {"encoding"}, "mspace": {"width"}, "mi": {"mathvariant"}, "mrow": {"class"},
    "mo": {"stretchy", "fence", "form", "movablelimits", "minsize", "maxsize"}, "mtable": {"displaystyle"},
    "mstyle": {"displaystyle", "scriptlevel"}, "mfrac": {"linethickness"}, "mtd": {"class"},
}  # fmt: skip
"""What a drawn formula may consist of: nothing that hides, moves or colours a part of it, or leads elsewhere."""

CLASSES = frozenset({"boxed", "start", "end"})
_LOOKS = {"rowspacing", "columnspacing", "accent", "accentunder", "lspace", "rspace"}
"""Attributes without which a formula still says the same."""

_ALPHABETS = {
    "bold": "MATHEMATICAL BOLD", "italic": "MATHEMATICAL ITALIC", "bold-italic": "MATHEMATICAL BOLD ITALIC",
    "double-struck": "MATHEMATICAL DOUBLE-STRUCK", "script": "MATHEMATICAL SCRIPT", "fraktur": "MATHEMATICAL FRAKTUR",
    "sans-serif": "MATHEMATICAL SANS-SERIF", "bold-sans-serif": "MATHEMATICAL SANS-SERIF BOLD",
    "monospace": "MATHEMATICAL MONOSPACE", "bold-script": "MATHEMATICAL BOLD SCRIPT",
    "bold-fraktur": "MATHEMATICAL BOLD FRAKTUR",
}  # fmt: skip
"""Browsers draw no ``mathvariant`` but "normal"; Unicode has the letters themselves."""


class _CannotDraw(Exception):
    """Shown as written."""


@lru_cache(maxsize=4_096)
def to_mathml(latex: str, display: bool) -> str | None:
    """MathML of a formula, with its source as an annotation; None where it cannot be drawn, all of it and as it says.

    Args:
        latex: without its delimiters.
        display: a line of its own.
    """
    # A comment would vanish; characters that are not seen have no place in a drawing.
    if not latex.strip() or len(latex) > LONGEST or not is_plain(latex) or re.search(r"(?<!\\)%", latex):
        return None
    from latex2mathml.converter import convert_to_element

    shape = "block" if display else "inline"
    unnumbered = re.sub(r"(\\(?:begin|end)\{(?:align|gather|equation))\}", r"\1*}", latex)
    try:
        drawn = "".join(map(_element, convert_to_element(unnumbered, display=shape)))
    except (_CannotDraw, RecursionError):
        return None
    except Exception:  # the library has an exception for some mistakes, and any of Python's for the others
        return None
    source = f'<annotation encoding="application/x-tex">{escape(latex)}</annotation>'
    return f'<math display="{shape}"><semantics>{drawn}{source}</semantics></math>'


def _element(element: Element) -> str:
    tag, children, given = element.tag, list(element), dict(element.attrib)
    if tag == "mspace" and given.get("width") == "negativethinmathspace":
        return ""
    if tag == "menclose" and given == {"notation": "box"}:
        tag, given = "mrow", {"class": "boxed"}
    if tag not in TAGS or len(children) != _CHILDREN.get(tag, len(children)):
        raise _CannotDraw
    text = re.sub("&#x([0-9A-F]{5});", lambda found: chr(int(found[1], 16)), element.text or "")  # its way to write one
    if re.match(r"\\[A-Za-z]", text):  # a command that it does not know
        raise _CannotDraw
    if given.get("mathvariant", "normal") != "normal":
        text = _letters(text, given.pop("mathvariant"))
    if tag == "mtd" and "columnalign" in given:
        given["class"] = {"left": "start", "right": "end"}.get(given.pop("columnalign"), "")
    attributes = ""
    for name, value in given.items():
        if name in ATTRIBUTES.get(tag, ()) and not value.startswith("-"):
            attributes += f' {name}="{escape(value)}"' if value else ""
        elif name not in _LOOKS:
            raise _CannotDraw
    return f"<{tag}{attributes}>{escape(text)}{''.join(map(_element, children))}</{tag}>"


def _letters(text: str, variant: str) -> str:
    """The letters of another alphabet that mathematics has."""
    alphabet = _ALPHABETS.get(variant)
    if alphabet is None:
        raise _CannotDraw
    try:
        return "".join(unicodedata.lookup(_name(char, alphabet)) if char.isalnum() else char for char in text)
    except KeyError:  # no such letter in it
        raise _CannotDraw from None


def _name(char: str, alphabet: str) -> str:
    name = unicodedata.name(char)
    letter = re.fullmatch(r"(?:LATIN |GREEK )?(CAPITAL|SMALL) LETTER (\w+)", name.removeprefix("MATHEMATICAL "))
    if letter is None:
        return f"{alphabet} {name}"  # DIGIT ONE
    found = f"{alphabet} {letter[1]} {letter[2]}"
    return _ELSEWHERE.get(found, found)


_ELSEWHERE = {
    "MATHEMATICAL ITALIC SMALL H": "PLANCK CONSTANT",
    **{f"MATHEMATICAL DOUBLE-STRUCK CAPITAL {c}": f"DOUBLE-STRUCK CAPITAL {c}" for c in "CHNPQRZ"},
    **{f"MATHEMATICAL SCRIPT CAPITAL {c}": f"SCRIPT CAPITAL {c}" for c in "BEFHILMR"},
    **{f"MATHEMATICAL SCRIPT SMALL {c}": f"SCRIPT SMALL {c}" for c in "EGO"},
    **{f"MATHEMATICAL FRAKTUR CAPITAL {c}": f"BLACK-LETTER CAPITAL {c}" for c in "CHIRZ"},
}
"""Letters that Unicode had before it had these alphabets."""

"""HTML to text: the main content as trafilatura finds it, else everything the body shows."""

import unicodedata
from dataclasses import replace
from typing import Any

import trafilatura
from lxml import etree  # type: ignore[import-untyped]
from lxml import html as lxml_html

from deployments.engines.extraction.document import Extracted, clean
from deployments.errors import UnreadableDocument

_UNSEEN = ("script", "style", "noscript", "template", "head", "svg", "iframe", "object")
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "details", "div", "dl", "dt"),
    *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table"),
    *("tr", "ul"),
)
_MAX_DEPTH = 200
"""Elements within elements that the recursive search for the main content has to bear."""

_STAND_INS = "".join(map(chr, range(0x12000, 0x1239A)))
"""Cuneiform: printable, and no part of any composition."""


def extract_html(text: str) -> Extracted:
    """Return what a page says.

    Raises:
        UnreadableDocument: the page has no text.
    """
    page = _parse(text)
    title = next(filter(None, (found.text_content().strip() for found in _titles(page))), "")
    body = _body(_parse(text))
    main = _main_content(page) or body
    boilerplate = max(0, _num_visible(body) - _num_visible(main))
    return replace(clean(main, title), num_boilerplate_characters=boilerplate)


def _num_visible(text: str) -> int:
    return sum(map(len, text.split()))


def _parse(text: str) -> Any:
    # As bytes, since lxml refuses a str with an encoding declaration.
    parser = lxml_html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True)
    try:
        return lxml_html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:
        raise UnreadableDocument("the file holds no text") from None


def _titles(page: Any) -> list[Any]:
    return [*page.xpath("//head/title"), *page.xpath("//h1")]


def _main_content(page: Any) -> str:
    """Return the main content, or nothing when there is no such thing; changes the page.

    trafilatura composes characters and drops joiners, which breaks emoji and some scripts, so those
    characters travel through it in disguise.
    """
    if _depth(page) > _MAX_DEPTH:
        return ""
    disguise = _disguise(page.text_content())
    for element in page.iter():
        element.text = element.text and element.text.translate(disguise)
        element.tail = element.tail and element.tail.translate(disguise)
    try:
        text = trafilatura.extract(page, include_comments=False, favor_recall=True) or ""
    except (RecursionError, ValueError, etree.LxmlError):
        return ""
    return text.translate({stand_in: character for character, stand_in in disguise.items()})


def _disguise(text: str) -> dict[int, int]:
    characters = set(text)
    endangered = sorted(filter(_is_endangered, characters))
    stand_ins = [character for character in _STAND_INS if character not in characters]
    return {ord(true): ord(false) for true, false in zip(endangered, stand_ins, strict=False)}


def _is_endangered(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cf", "Co", "Mn", "Mc", "Me")
        or unicodedata.normalize("NFC", character) != character
        or "\u1160" <= character <= "\u11ff"  # Hangul vowels and finals, which compose
    )


def _depth(page: Any) -> int:
    depth = deepest = 0
    for event, _ in etree.iterwalk(page, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def _body(page: Any) -> str:
    for element in page.xpath("|".join(f"//{name}" for name in _UNSEEN)):
        element.drop_tree()
    for element in page.iter():
        if element.tag in _BLOCKS:
            element.tail = "\n" + (element.tail or "")
            element.text = "\n" + (element.text or "")
    lines = (" ".join(line.split()) for line in page.text_content().splitlines())
    return "\n".join(line for line in lines if line)

"""Character by character: encoding damage, what nobody sees, Unicode's forms, white space."""

import re
import unicodedata
from collections.abc import Callable

import ftfy

from deployments.engines.cleaning.options import CleanOptions, Removed

_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_character_width=False,  # it would make Chinese full stops and commas ASCII
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=True,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)
_RETURNS = re.compile("\r\n?")
_LINE_ENDS = re.compile("[\v\f\x85\u2028\u2029]")

_INVISIBLE = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]{2,6}\U000e007f)"
    "|\x1b\\[[0-9;]*[A-Za-z]"
    "|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
    "|[\u00ad\u202d\u202e\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Terminals' colours, controls, lone surrogates and noncharacters; soft hyphens, overrides of the
writing direction, byte order marks, annotations; and tags, which hide text from readers but not
from models, unless they end a region's flag (the first group). Joiners and direction marks stay."""

_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_RUN = re.compile(r"(?<=\S) {2,}(?=\S)")
_EMPTY_LINES = re.compile(r"\n{3,}")


def clean_characters(text: str, options: CleanOptions, removed: Removed) -> str:
    """Return a text with its characters in order, adding to `removed` what was not."""
    text = _RETURNS.sub("\n", text)
    if options.encoding:
        # Before the rarer line ends are made equal: U+0085 is a byte of many a damaged letter.
        text, removed.num_repaired_lines = _by_line(text, _repair)
    text = _LINE_ENDS.sub("\n", text)
    visible = _INVISIBLE.sub(lambda match: match[1] or "", text)
    removed.num_control_characters = len(text) - len(visible)
    text = visible
    form = options.unicode
    if form != "none" and not unicodedata.is_normalized(form, text):
        text, removed.num_normalized_lines = _by_line(
            text, lambda line: unicodedata.normalize(form, line)
        )
    if not options.whitespace:
        return text
    tidied = _tidy(text)
    removed.num_whitespace_characters = len(text) - len(tidied)
    return tidied


def _by_line(text: str, change: Callable[[str], str]) -> tuple[str, int]:
    """Return the changed text and how many of its lines are not as they were."""
    before = text.split("\n")
    after = [line if line.isascii() else change(line) for line in before]
    return "\n".join(after), sum(old != new for old, new in zip(before, after, strict=True))


def _repair(line: str) -> str:
    return ftfy.fix_text(line, _REPAIR)


def _tidy(text: str) -> str:
    """Return a text without white space that says nothing; indentation and tabs stay."""
    lines = (_RUN.sub(" ", _SPACES.sub(" ", line)).rstrip() for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n").rstrip()

"""Whatever a stranger writes costs time in proportion to its length: four times for four times.

A growth is compared, never a time. A pattern that backtracks costs sixteen times, or does not end.
"""

import time
from collections.abc import Callable

import pytest

from deployments.engines.cleaning.cleaner import clean
from deployments.engines.cleaning.options import CleanOptions, Draft
from deployments.engines.cleaning.personal import find_personal
from deployments.engines.extraction.decoding import decode
from deployments.engines.extraction.detection import detect
from deployments.engines.extraction.extract import extract_text
from deployments.engines.texts.borders import Borders
from deployments.stores.highlights import highlights
from deployments.stores.tokens import document_tokens, tokens

KINDS = ("iban", "cn_id", "card", "us_ssn", "email", "phone")
SHORT, LONG = 25_000, 200_000
"""Characters of the shorter text: of slow work, and of fast."""

NOISE_S = 0.1
"""Work so short is too short to compare, and not quadratic at these sizes."""

READERS: dict[str, tuple[Callable[[str], object], int, str]] = {
    "borders": (Borders, LONG, "! ? !? ?a \fa \u2029a … 。 . .a .'a '. \n # \u0301"),
    "markdown": (lambda text: extract_text(f"# a{text}b".encode(), "a.md"), LONG, "# a # #\n"),
    "encodings": (lambda text: decode(text.encode() + b"\xff\xfe"), LONG, "<meta <?xml a é"),
    "kinds": (lambda text: detect(text.encode(), "a.html"), LONG, "<!----> <!-- --> <?xml> <a"),
    "cleaning": (
        lambda text: clean(Draft(text), CleanOptions()),
        SHORT,
        "a é Ã â€ \x1b[ \x1b[1; \r",
    ),
    "personal": (
        lambda text: find_personal(text, KINDS, ()),
        SHORT,
        "@ a@ a. @a. 1 1- DE12 +1 ( /1",
    ),
    "terms": (lambda text: list(document_tokens(text)), SHORT, "a é 的 \u0915\u094d @ \u0301"),
    "query": (lambda text: list(tokens(text)), SHORT, "a é 的 \u0915\u094d @ \u0301"),
    "highlights": (lambda text: highlights(frozenset("ab"), text), SHORT, "a é 的a a@"),
}
CASES = [
    pytest.param(name, unit, id=f"{name} {unit!r}")
    for name, (_, _, units) in READERS.items()
    for unit in [*units.split(" "), " ", "a "]
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "unit"), CASES)
def test_hostile_text_takes_linear_time(name: str, unit: str) -> None:
    work, size, _ = READERS[name]
    short, long = (unit * (length // len(unit)) for length in (size, 4 * size))
    work("warm up")
    long_s = fastest(work, long)
    assert long_s < NOISE_S or long_s < 8 * fastest(work, short)


def fastest(work: Callable[[str], object], text: str) -> float:
    """Return the least of two runs' seconds of processor time."""
    times = []
    for _ in range(2):
        started_s = time.process_time()
        work(text)
        times.append(time.process_time() - started_s)
        if times[0] < NOISE_S:
            break
    return min(times)

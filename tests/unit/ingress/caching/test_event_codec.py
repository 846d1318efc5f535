"""Events as bytes: whatever an answer can hold comes back as it was."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.ingress.caching import event_codec
from deployments.ingress.caching.event_codec import decoded, encoded
from deployments.types import (
    Delta,
    Finished,
    Passage,
    PromptAccepted,
    ScoredChunk,
    Sources,
    TokenLogprob,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**31)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LOGPROBS = st.recursive(
    st.builds(TokenLogprob, COUNT, st.binary(max_size=6), FINITE),
    lambda inner: st.builds(
        TokenLogprob, COUNT, st.binary(max_size=6), FINITE, st.lists(inner, max_size=2).map(tuple)
    ),
    max_leaves=3,
)
PASSAGES = st.lists(st.builds(Passage, TEXT, TEXT, COUNT, COUNT), max_size=2).map(tuple)
CHUNKS = st.builds(
    ScoredChunk,
    chunk_id=TEXT,
    document_id=TEXT,
    title=TEXT,
    text=TEXT,
    start=COUNT,
    end=COUNT,
    score=FINITE,
    cosine=st.none() | FINITE,
    rerank_score=st.none() | FINITE,
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
    before=PASSAGES,
    after=PASSAGES,
    highlights=st.lists(st.tuples(COUNT, COUNT), max_size=2).map(tuple),
)
EVENTS = st.lists(
    st.builds(PromptAccepted, COUNT, COUNT, TEXT)
    | st.builds(Delta, TEXT, COUNT, st.lists(LOGPROBS, max_size=2).map(tuple))
    | st.builds(Finished, st.sampled_from(["stop", "length"]), COUNT, COUNT)
    | st.builds(Sources, st.lists(CHUNKS, max_size=2).map(tuple)),
    max_size=6,
)


@given(EVENTS)
def test_events_come_back_as_they_were(events: list[object]) -> None:
    assert decoded(encoded(events)) == events


def test_events_of_another_release_are_not_read() -> None:
    kept = encoded([PromptAccepted(1)])
    assert decoded(kept) is not None
    older = kept.replace(f"[{event_codec.VERSION},".encode(), b"[0,", 1)
    assert decoded(older) is None

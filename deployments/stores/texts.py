"""Texts as Arrow arrays, made Python's without letting one value fill the memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deployments.errors import RagError
from deployments.stores.content import invalid

Text = str | RagError | None
"""A text, what is wrong with it, or nothing."""

MAX_BATCH_BYTES = 256 * 1024 * 1024


def texts_of(column: pa.Array, max_bytes: int) -> list[Text]:
    """Return each value; those that are too large, or not UTF-8, as an error.

    Args:
        column: of text, or of dictionaries of text, where a small file may repeat a large value.
        max_bytes: the largest value that is made a text at all.
    """
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.cast(pa.large_string())
    indices = column.indices
    lengths = np.asarray(pc.fill_null(pc.binary_length(words), 0))
    made: list[Text] = (
        [
            invalid("the text is too large", "text") if lengths[i] > max_bytes else _text(words, i)
            for i in range(len(words))
        ]
        if (lengths > max_bytes).any()
        else _texts(words)
    )
    made.append(None)
    places = np.asarray(pc.fill_null(indices.cast(pa.int64()), len(words)))
    return [made[place] for place in places.tolist()]


def _texts(words: pa.Array) -> list[Text]:
    try:
        texts: list[Text] = words.to_pylist()
    except UnicodeDecodeError:
        texts = [_text(words, i) for i in range(len(words))]
    return texts


def _text(words: pa.Array, position: int) -> Text:
    try:
        text: Text = words[position].as_py()
    except UnicodeDecodeError:
        return invalid("the text is not UTF-8", "text")
    return text

"""The words around the passages: what lets a small model answer from them and nothing else.

Measured, not guessed: ``tests/bench/facts.py`` compares templates and numbers of passages. The
question stands before the passages too: the model then reads them with the question in mind.
"""

TEMPLATE = (
    "Question: {question}\n\n"
    "Use the passages below to answer the question. Answer in one short sentence, with the "
    "exact names, numbers and words of the passages.\n\n"
    "{passages}\n\n"
    "Question: {question}"
)

UNKNOWN = "I do not know: I found nothing about this in the collection."

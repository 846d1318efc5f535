"""Keeps the output inside a JSON schema or a regex. It knows tokens, and no sampling."""

import json
import threading
from collections import OrderedDict
from typing import Any

import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer

from deployments.errors import InvalidRequest
from deployments.types import Grammar

MAX_COMPILED = 64
MAX_SOURCE = 64 * 1024
"""Characters of a schema or regex; compiling is linear in practice, but not by promise."""


class Matcher:
    """How far one output has come in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._bitmask = llguidance.numpy.allocate_token_bitmask(1, vocab_size)

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores, float32[vocab], of all tokens that cannot come next to minus infinity."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bitmask, 0)
        bits = np.unpackbits(self._bitmask[0].view(np.uint8), bitorder="little")
        forbidden = torch.from_numpy(bits[: scores.numel()] == 0)
        scores.masked_fill_(forbidden.to(scores.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Go on by one token, which the mask allowed."""
        self._matcher.consume_token(token)


class GrammarCompiler:
    """Compiles grammars for one tokenizer and remembers the latest. Safe from any thread."""

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self.vocab_size = vocab_size
        self._tokenizer: LLTokenizer = llguidance.hf.from_tokenizer(
            tokenizer, n_vocab=vocab_size, eos_token=sorted(eos_token_ids)
        )
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for."""
        return self._tokenizer.decode_bytes([token_id])

    def matcher(self, grammar: Grammar) -> Matcher:
        """Return a matcher at the grammar's start.

        Raises:
            InvalidRequest: the schema or regex is malformed or not supported.
        """
        with self._lock:
            compiled = self._compiled.get(grammar)
            if compiled is None:
                compiled = self._compile(grammar)
                self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
            return Matcher(compiled.deep_copy(), self.vocab_size)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        if len(grammar.source) > MAX_SOURCE:
            raise _refused(f"the {grammar.kind} is longer than {MAX_SOURCE} characters")
        try:
            source = _lark(grammar)
        except ValueError as error:
            raise _refused(f"the {grammar.kind} cannot be used: {error}") from error
        matcher = LLMatcher(self._tokenizer, source)
        if matcher.is_error():
            reason = matcher.get_error().splitlines()[0]
            raise _refused(f"the {grammar.kind} cannot be used: {reason}")
        return matcher


def _lark(grammar: Grammar) -> str:
    """Return the grammar in llguidance's form.

    White space between JSON tokens is fixed: where it is free, a small model may fill its whole
    budget with it.
    """
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.source)
    schema = {"type": "object"} if grammar.kind == "json_object" else json.loads(grammar.source)
    return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})


def _refused(message: str) -> InvalidRequest:
    refused = InvalidRequest(message)
    refused.param = "response_format"
    return refused

"""What every engine that is handed tokens does itself: text to tokens, and what it can sample."""

from collections.abc import Sequence

from deployments.engines.generation.admission import check_tokens
from deployments.engines.generation.transformers.chat import TextCodec
from deployments.engines.generation.transformers.grammar import GrammarCompiler
from deployments.types import Message, SamplingParams


class OwnText:
    """Part of a `GenerationEngine`; the engine sets the two attributes when it has loaded."""

    _codec: TextCodec
    _grammars: GrammarCompiler

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text."""
        return self._codec.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a chat in the model's template."""
        return self._codec.encode_chat(messages)

    def check(self, sampling: SamplingParams) -> None:
        """Refuse a grammar that cannot be compiled, and biases of tokens that do not exist."""
        if sampling.grammar is not None:
            self._grammars.matcher(sampling.grammar)
        biased = (token for token, _ in sampling.logit_bias)
        check_tokens(biased, self._grammars.vocab_size, "logit_bias")

"""The official `openai` client against the default application: it gets what it asks for."""

import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.stack import Stack

MODEL = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
SCRIPTS = "你好，世界！مرحبا بالعالم שלום עולם 👩‍👩‍👧 🇩🇪 e\u0301 \u202eabc"
SOME_TOKEN, OTHER_TOKEN = "5000", "6000"


class City(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    inhabitants: int
    is_capital: bool


def chat(ai: openai.OpenAI, question: str, **options: Any) -> Any:
    """One chat of one question; greedy and short unless the options say otherwise."""
    options = {"max_tokens": 16, "temperature": 0, "model": MODEL, **options}
    return ai.chat.completions.create(messages=[{"role": "user", "content": question}], **options)


def text_of(completion: Any) -> str:
    return completion.choices[0].message.content


def test_models_are_listed(ai: openai.OpenAI) -> None:
    models = {model.id for model in ai.models.list()}
    assert {MODEL, EMBEDDER} <= models


def test_stream_and_whole_answer_agree_to_the_token(ai: openai.OpenAI) -> None:
    question = "Name three colours."
    whole = chat(ai, question)
    chunks = list(chat(ai, question, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == text_of(whole)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_stream_without_include_usage_has_no_empty_chunk(ai: openai.OpenAI) -> None:
    chunks = list(chat(ai, "Count to three.", stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    assert sum(chunk.choices[0].finish_reason is not None for chunk in chunks) == 1


def test_max_tokens_ends_an_answer(ai: openai.OpenAI) -> None:
    answer = chat(ai, "Tell me a long story about the sea.", max_tokens=7)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7
    same = chat(
        ai, "Tell me a long story about the sea.", max_tokens=openai.omit, max_completion_tokens=7
    )
    assert text_of(same) == text_of(answer)


def test_logprobs_are_those_of_the_tokens(ai: openai.OpenAI) -> None:
    answer = chat(ai, "Say hello.", logprobs=True, top_logprobs=3, max_tokens=40)
    choice = answer.choices[0]
    entries = choice.logprobs.content
    # The end of the turn is a sampled token without a text.
    num_ends = int(choice.finish_reason == "stop")
    assert answer.usage.completion_tokens == len(entries) + num_ends
    assert b"".join(bytes(e.bytes) for e in entries).decode() == choice.message.content
    for entry in entries:
        values = [other.logprob for other in entry.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry.logprob == pytest.approx(values[0], abs=1e-6)  # greedy takes the likeliest
        assert sum(math.exp(value) for value in values) <= 1.001


def test_n_gives_choices_of_their_own(ai: openai.OpenAI) -> None:
    answer = chat(ai, "Invent a name for a cat.", n=3, temperature=1.5, seed=11)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    alone = chat(ai, "Invent a name for a cat.", temperature=1.5, seed=12)
    assert text_of(alone) == answer.choices[1].message.content


def test_stop_across_tokens_never_leaks(ai: openai.OpenAI) -> None:
    question = "Repeat: one two three four five six"
    free = text_of(chat(ai, question, max_tokens=32))
    middle = len(free) // 2
    for length in (1, 3, 7):
        stop = free[middle : middle + length]
        wanted = free[: free.index(stop)]
        whole = chat(ai, question, max_tokens=32, stop=[stop])
        assert text_of(whole) == wanted
        assert whole.choices[0].finish_reason == "stop"
        chunks = chat(ai, question, max_tokens=32, stop=[stop, "never said"], stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == wanted


def test_seed_repeats_an_answer_alone_and_in_company(ai: openai.OpenAI) -> None:
    def once(seed: int) -> str:
        chunks = chat(ai, "Tell me a story.", temperature=1, seed=seed, max_tokens=24, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in chunks)

    alone = once(7)
    assert once(7) == alone
    with ThreadPoolExecutor(9) as pool:
        in_company = list(pool.map(once, [1, 2, 3, 4, 7, 5, 6, 8, 9]))
    assert in_company[4] == alone
    assert len(set(in_company)) > 1


def test_logit_bias_forces_and_bans_tokens(ai: openai.OpenAI) -> None:
    def tokens(**bias: int) -> set[str]:
        answer = chat(
            ai,
            "Say hello.",
            max_tokens=4,
            logprobs=True,
            logit_bias={t[1:]: v for t, v in bias.items()},
        )
        return {entry.token for entry in answer.choices[0].logprobs.content}

    one = tokens(**{f"t{SOME_TOKEN}": 100})
    other = tokens(**{f"t{OTHER_TOKEN}": 100})
    assert len(one) == len(other) == 1
    assert one != other
    assert tokens(**{f"t{SOME_TOKEN}": -100, f"t{OTHER_TOKEN}": 100}) == other
    assert one.isdisjoint(tokens(**{f"t{SOME_TOKEN}": -100}))


def test_json_schema_is_obeyed(ai: openai.OpenAI) -> None:
    format = {"name": "city", "schema": City.model_json_schema(), "strict": True}
    answer = chat(
        ai,
        "Describe the city of Paris as JSON.",
        response_format={"type": "json_schema", "json_schema": format},
        max_tokens=96,
        temperature=0.7,
        seed=3,
    )
    assert answer.choices[0].finish_reason == "stop"
    City.model_validate_json(text_of(answer))


def test_pydantic_class_is_parsed(ai: openai.OpenAI) -> None:
    completion = ai.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe the city of Rome as JSON."}],
        response_format=City,
        max_tokens=96,
        temperature=0,
    )
    assert isinstance(completion.choices[0].message.parsed, City)


def test_regex_is_obeyed(ai: openai.OpenAI) -> None:
    pattern = r"[A-Z]{3}-[0-9]{4}"
    for seed in (1, 2):
        answer = chat(
            ai,
            "Invent a licence plate.",
            extra_body={"response_format": {"type": "regex", "regex": pattern}},
            temperature=1,
            seed=seed,
        )
        assert re.fullmatch(pattern, text_of(answer))


@pytest.mark.parametrize(
    "penalty",
    [
        {"extra_body": {"repetition_penalty": 5.0}},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
    ],
    ids=["repetition", "presence", "frequency"],
)
def test_penalty_makes_an_answer_more_varied(ai: openai.OpenAI, penalty: dict[str, Any]) -> None:
    assert len(set(said(ai, **penalty))) > len(set(said(ai)))


def said(ai: openai.OpenAI, **options: Any) -> list[str]:
    """Return the tokens of an answer that repeats itself unless it is penalised."""
    options = {"model": MODEL, "max_tokens": 48, "temperature": 0, "logprobs": 0, **options}
    answer = ai.completions.create(prompt="The sea is big. The sea is", **options)
    return answer.choices[0].logprobs.tokens


def test_completions_continue_a_text(ai: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 8, "temperature": 0}
    prompt = "The capital of France is"
    whole = ai.completions.create(prompt=prompt, logprobs=2, **options)
    assert "Paris" in whole.choices[0].text
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == whole.choices[0].text
    streamed = ai.completions.create(prompt=prompt, stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    two = ai.completions.create(prompt=[prompt, "The capital of Italy is"], **options)
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].text == whole.choices[0].text


def test_embeddings_know_a_paraphrase(ai: openai.OpenAI) -> None:
    texts = ["How old are you?", "What is your age?", "The train leaves at noon."]
    vectors = [item.embedding for item in ai.embeddings.create(model=EMBEDDER, input=texts).data]
    floats = ai.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    assert floats.usage.prompt_tokens > 0
    for vector, item in zip(vectors, floats.data, strict=True):
        assert vector == pytest.approx(item.embedding, abs=1e-6)
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.3


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_scripts_do_no_harm(ai: openai.OpenAI) -> None:
    answer = chat(ai, f"Repeat this: {SCRIPTS}", max_tokens=32)
    streamed = chat(ai, f"Repeat this: {SCRIPTS}", max_tokens=32, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == text_of(answer) != ""
    vector = ai.embeddings.create(model=EMBEDDER, input=SCRIPTS).data[0].embedding
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)


def test_unknown_model_is_not_found(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(ai, "Hello", model="gpt-17")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        chat(ai, "Hello", model="rag/no-such-collection")


def test_prompt_over_the_context_is_refused(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(ai, "word " * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_tools_are_refused_by_name(ai: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        chat(ai, "What time is it?", tools=[tool])
    assert caught.value.param == "tools"
    assert "tools" in caught.value.message


def test_wrong_key_is_refused(stack: Stack) -> None:
    with (
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="rs_wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        chat(stranger, "Hello")
    assert caught.value.code == "invalid_api_key"

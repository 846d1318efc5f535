"""Lines of examples: what is taken, and what each bad one is told."""

import json

import pytest

from deployments.errors import InvalidRequest
from deployments.tuning import examples as module
from deployments.tuning.examples import held_back, read_examples, read_order
from deployments.types import Example, TuningOrder

CHAT = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
}
PAIR = {"prompt": "A", "completion": " B"}


def lines(*values: object) -> bytes:
    return b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in values)


def turns(*pairs: tuple[object, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_chats_and_pairs_are_read_with_their_lines():
    found = read_examples(lines(CHAT, b"", b"  \r", PAIR) + b"\n", "file")
    assert [(one.line, one.prompt, one.completion) for one in found] == [
        (1, "", ""),
        (4, "A", " B"),
    ]
    assert [turn["role"] for turn in found[0].messages] == ["user", "assistant"]


def test_developer_is_a_system():
    [found] = read_examples(lines(turns(("developer", "Be."), ("assistant", "I am."))), "file")
    assert found.messages[0]["role"] == "system"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'"text"', "not an object"),
        ({}, "`completion` is missing"),
        ({"prompt": "A"}, "`completion` is missing"),
        ({"completion": "A"}, "`prompt` is missing"),
        ({"prompt": "A", "completion": " "}, "`completion` is empty"),
        ({"prompt": 1, "completion": "A"}, "`prompt` is no text"),
        ({**PAIR, "weight": 1}, "has other fields"),
        ({**CHAT, "prompt": "A"}, "has other fields"),
        ({"messages": []}, "no list of turns"),
        ({"messages": "Hi"}, "no list of turns"),
        ({"messages": ["Hi"]}, "a turn is no object"),
        ({"messages": [{"role": "user"}]}, "`content` is missing"),
        (turns(("user", "Hi")), "does not end with the assistant"),
        (turns(("user", "Hi"), ("assistant", "")), "the assistant says nothing"),
        (turns(("tool", "Hi"), ("assistant", "A")), "`role` is none of"),
        (turns((["user"], "Hi"), ("assistant", "A")), "`role` is none of"),
        (turns(("user", None), ("assistant", "A")), "`content` is no text"),
        (turns(*[("user", "Hi")] * 300, ("assistant", "A")), "more than 256 turns"),
        ({"prompt": "A" * (300 * 1024), "completion": "B"}, "longer than 262144 bytes"),
    ],
)
def test_bad_line_is_told_with_its_number_and_reason(line: object, reason: str):
    with pytest.raises(InvalidRequest) as caught:
        read_examples(lines(PAIR, line, CHAT), "file")
    assert caught.value.message.startswith("1 line is bad: line 2: ")
    assert reason in caught.value.message
    assert caught.value.param == "file"


def test_every_bad_line_is_told_up_to_a_bound():
    with pytest.raises(InvalidRequest) as caught:
        read_examples(lines(*[b"{"] * 3, PAIR, b"7"), "file")
    told = "4 lines are bad: line 1: not JSON; line 2: not JSON; line 3: not JSON; line 5: not an"
    assert caught.value.message.startswith(told)
    with pytest.raises(InvalidRequest, match="line 50: not JSON; and 10 more$"):
        read_examples(lines(*[b"{"] * 60), "file")


def test_nothing_and_too_much_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InvalidRequest, match="no examples"):
        read_examples(b"\n\n", "file")
    monkeypatch.setattr(module, "MAX_LINES", 2)
    assert len(read_examples(lines(PAIR, PAIR) + b"\n", "file")) == 2
    with pytest.raises(InvalidRequest, match="more than 2 lines"):
        read_examples(lines(PAIR, PAIR, PAIR), "file")


def test_held_back_examples_are_not_trained_on_and_follow_the_seed():
    found = [Example(number, prompt="a", completion="b") for number in range(20)]
    trained, held = held_back(found, 0.1, 7)
    assert (len(trained), len(held)) == (18, 2)
    assert sorted([*trained, *held], key=lambda one: one.line) == found
    assert held_back(found, 0.1, 7) == (trained, held)
    assert held_back(found, 0.1, 8)[1] != held
    assert len(held_back(found[:2], 0.99, 0)[0]) == 1
    with pytest.raises(InvalidRequest):
        held_back(found[:1], 0.5, 0)


def test_given_evaluation_leaves_all_examples_to_train_on():
    order = TuningOrder(
        name="m", version="1", base="b", examples=lines(PAIR), evaluation=lines(CHAT, CHAT)
    )
    trained, held = read_order(order)
    assert (len(trained), len(held)) == (1, 2)

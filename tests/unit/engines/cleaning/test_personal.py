"""Personal data: what is found, what is left alone, and that hostile texts take linear time."""

import time

import pytest

from deployments.engines.cleaning.checksums import is_card, is_cn_id, is_iban
from deployments.engines.cleaning.personal import find_personal, redact

ALL = ("email", "phone", "card", "iban", "cn_id", "us_ssn")


def redacted(text: str, *kinds: str, regions: tuple[str, ...] = ()) -> str:
    return redact(text, find_personal(text, kinds or ALL, regions))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail o'neil+x@mail.example.co.uk, please", "mail [EMAIL], please"),
        ("请联系a.b@example.com或者打电话", "请联系[EMAIL]或者打电话"),
        ("<a@b.org>;c@d.org", "<[EMAIL]>;[EMAIL]"),
        ("почта@пример.рф!", "[EMAIL]!"),
        ("call +1 650-253-0000 now", "call [PHONE] now"),
        ("电话：+86 138 1234 5678。", "电话：[PHONE]。"),
        ("card 4111 1111 1111 1111 ok", "card [CARD] ok"),
        ("4111-1111-1111-1111", "[CARD]"),
        ("4111111111111111", "[CARD]"),
        ("2024 4111 1111 1111 1111 12", "2024 [CARD] 12"),
        ("4111\u200b1111\u200b1111\u200b1111", "[CARD]"),
        ("４１１１１１１１１１１１１１１１", "[CARD]"),
        ("amex 3782 822463 10005.", "amex [CARD]."),
        ("身份证11010519491231002X号", "身份证[CN_ID]号"),
        ("IBAN DE89 3704 0044 0532 0130 00 and", "IBAN [IBAN] and"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("SSN 078-05-1120.", "SSN [US_SSN]."),
    ],
)
def test_personal_data_gets_a_placeholder(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3, 2026-11-22 at 12:30, page 17 of 240",
        "4111 1111 1111 1112",
        "1234567890123456",
        "0000 0000 0000 0000",
        "110105194912310021",
        "11010519490231002X",
        "DE88 3704 0044 0532 0130 00",
        "DE89 3704 0044 0532 0130 0012",
        "000-12-3456 and 666-12-3456 and 078-05-0000",
        "user@localhost, @handle, a@b, x@@y.z",
        "π is 3.14159265358979323846264338327950288",
        "sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_fails_its_checksum_is_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_phone_numbers_without_a_country_need_a_region() -> None:
    assert redacted("ring 138 1234 5678") == "ring 138 1234 5678"
    assert redacted("ring 138 1234 5678", regions=("US", "CN")) == "ring [PHONE]"
    assert redacted("+86 138 1234 5678", regions=("US",)) == "[PHONE]"


def test_only_the_kinds_asked_for_are_found() -> None:
    assert redacted("a@b.org 4111111111111111", "card") == "a@b.org [CARD]"


def test_overlapping_kinds_give_one_placeholder() -> None:
    assert redacted("11010519491231002X", "phone", "card", "cn_id", regions=("CN",)) == "[CN_ID]"


@pytest.mark.parametrize("number", ["5555555555554444", "378282246310005", "6011111111111117"])
def test_cards_of_the_issuers_test_pages(number: str) -> None:
    assert is_card(number)
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert not is_card(wrong)


def test_checksums_of_the_standards_examples() -> None:
    assert is_cn_id("11010519491231002X")
    assert not is_cn_id("990105194912310029")
    assert is_iban("GB82WEST12345698765432")
    assert is_iban("NO9386011117947")
    assert not is_iban("GB82WEST12345698765433")
    assert not is_iban("ZZ82WEST12345698765432")


@pytest.mark.parametrize(
    "unit",
    ["a", "@", "a@", "a.", "@a.", "1", "1 ", "1-", "4111 ", "DE89", "AB12 ", "+1", "(", "１"],
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    find_personal(text, ALL, ())
    assert time.process_time() - started < 10

"""Numbers that prove themselves: payment cards, IBAN, Chinese resident identity numbers."""

import datetime
import unicodedata

MIN_CARD_DIGITS = 13
MAX_CARD_DIGITS = 19

_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CN_CHECKS = "10X98765432"
_CN_PROVINCES = frozenset(
    f"{number}"
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71))
    for number in range(first, last + 1)
) | {"81", "82", "83"}

_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
    "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
    "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}
"""Characters of an IBAN by country. Source: SWIFT's IBAN registry."""


def ascii_digits(text: str) -> str:
    """Return a text with the digits of every script as ASCII ones."""
    if text.isascii():
        return text
    return "".join(one if one.isascii() else str(unicodedata.decimal(one, one)) for one in text)


def is_card(digits: str) -> bool:
    """Tell whether ASCII digits are a payment card's number, by issuer range and Luhn's checksum.

    Source: ISO/IEC 7812: banks' and travel cards begin with 2 to 6.
    """
    if not MIN_CARD_DIGITS <= len(digits) <= MAX_CARD_DIGITS or digits[0] not in "23456":
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def is_cn_id(number: str) -> bool:
    """Tell whether 18 characters are a resident identity number: province, birthday, checksum.

    Source: GB 11643-1999.
    """
    if len(number) != 18 or number[:2] not in _CN_PROVINCES or not number[:17].isdigit():
        return False
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _CN_WEIGHTS, strict=False))
    return number[17].upper() == _CN_CHECKS[total % 11]


def is_iban(number: str) -> bool:
    """Tell whether ASCII letters and digits are an IBAN, by its country's length and its checksum.

    Source: ISO 13616; the checksum is ISO 7064's MOD 97-10.
    """
    if len(number) != IBAN_LENGTHS.get(number[:2].upper()) or not number[2:4].isdigit():
        return False
    return int("".join(str(int(one, 36)) for one in number[4:] + number[:4])) % 97 == 1

"""Texts of one line: one function says what pydantic's own constraints would say, one after the other."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from app.schemas.base import OneLine

MOST = 6


def _one_line(text: str) -> str:
    if text != text.strip() or any(ord(each) < 32 or ord(each) == 127 or 0xD800 <= ord(each) < 0xE000 for each in text):
        message = "must be one line of text, without blanks around it and without control characters"
        raise PydanticCustomError("not-one-line", message)
    return text


ONE: TypeAdapter[str] = TypeAdapter(Annotated[str, OneLine(MOST)])
SEVERAL: TypeAdapter[str] = TypeAdapter(
    Annotated[Annotated[str, AfterValidator(_one_line)], Field(min_length=1, max_length=MOST)]
)


def _outcome(rule: TypeAdapter[str], value: object) -> object:
    try:
        return rule.validate_python(value)
    except ValidationError as error:
        return error.errors()


# Blanks, control characters, what is neither printable nor refused, halves of surrogate pairs, and some letters.
_texts = st.text(
    st.sampled_from("aZ9 \t\n\r\x00\x1f\x7f\x85\xa0\xad\u200b\u2028\ue000\ud800\udfff\U0001f600"), max_size=9
)


@given(_texts | st.text(max_size=9) | st.sampled_from([None, 1, b"a", ["a"]]))
def test_says_what_the_single_constraints_say(value: Any) -> None:
    assert _outcome(ONE, value) == _outcome(SEVERAL, value)


@pytest.mark.parametrize("value", ["", "a", "a" * MOST, "a" * (MOST + 1), " ", " a", "a\u2028", "a\xa0b", "a\ud800"])
def test_says_it_at_the_bounds(value: str) -> None:
    assert _outcome(ONE, value) == _outcome(SEVERAL, value)

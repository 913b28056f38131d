"""Whatever is sent, each parser reads it as its oracle does or refuses it with its own error, in linear time."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy.engine import URL

from app import exact_json, gtin, http_cache, idempotency, import_columns, instants, money
from app.errors import InvalidRequest, PreconditionFailed, PreconditionRequired
from app.feed_position import NotAPosition
from app.feed_position import Position as FeedPosition
from app.key_token import KeySecret, KeyToken, mask
from app.models import ItemKey
from app.pagination import Cursors
from tests.conftest import make_settings

CURSORS = Cursors("a secret of at least thirty-two characters")
SECRET = KeySecret("a secret of at least thirty-two characters")
NUMBERISH = st.text("0123456789.-+eE_ ٣,", max_size=40) | st.text(max_size=20)
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda kids: st.lists(kids, max_size=3),
    max_leaves=5,
)


@given(NUMBERISH | st.integers() | st.floats() | st.booleans() | st.none())
@example("1e3")
@example("0" * 100)
@example("NaN")
def test_money(value: Any) -> None:
    try:
        found = money.parse(value)
    except money.NotAnAmount:
        found = None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    plain = isinstance(text, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?", text, re.ASCII)
    if plain and found is not None:
        assert found == Decimal(text)
    elif found is not None:
        # More zeros at the end than digits are allowed are no digits.
        assert Decimal(str(text)) == found
        assert found.is_finite()
    else:
        assert not plain, value


@given(
    st.text("0123456789-:T.Zz+ ", max_size=40) | st.datetimes().map(str) | st.dates().map(str) | st.text(max_size=20)
)
@example("2026-02-29")
@example("2026-12-31T23:59:60Z")
@example("0001-01-01T00:00:00+14:00")
def test_instants(text: str) -> None:
    try:
        found = instants.parse(text)
    except instants.NotAnInstant:
        return
    if isinstance(found, datetime):
        assert found.tzinfo is UTC
        assert found == datetime.fromisoformat(text.upper())
        assert instants.parse(instants.text(found)) == found
    else:
        assert found == date.fromisoformat(text)


@given(st.text("0123456789٣", max_size=16) | st.text(max_size=16))
def test_gtin(text: str) -> None:
    valid = text.isascii() and text.isdigit() and len(text) in (8, 12, 13, 14)
    if valid:
        padded = text.zfill(14)
        valid = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(padded)) % 10 == 0
    assert gtin.is_valid(text) == valid


@given(
    st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.hex()),
    st.dictionaries(st.text(max_size=3), JSONISH),
)
def test_cursors_cannot_be_made_up(cursor: str, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        CURSORS.decode(cursor, filters)


@given(
    st.dictionaries(st.text(max_size=5), JSONISH, max_size=3),
    st.dictionaries(st.text(max_size=5), JSONISH, max_size=3),
    st.data(),
)
def test_cursors_are_read_back_and_bound(
    position: dict[str, Any], filters: dict[str, Any], data: st.DataObject
) -> None:
    cursor = CURSORS.encode(position, filters)
    assert CURSORS.decode(cursor, filters) == position
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda sign: sign != cursor[place]))
    changed = cursor[:place] + other + cursor[place + 1 :]
    try:
        # The last sign may have bits that say nothing.
        assert CURSORS.decode(changed, filters) == position
        assert place == len(cursor) - 1
    except InvalidRequest:
        pass
    with pytest.raises(InvalidRequest):
        CURSORS.decode(cursor, {**filters, "more": 1})


@given(st.text(max_size=90) | st.from_regex(r"pb_[0-9a-f]{15,17}_[A-Za-z0-9_-]{42,44}", fullmatch=True))
def test_keys(text: str) -> None:
    token = KeyToken.parse(text)
    if token is None:
        assert not re.fullmatch(r"pb_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", text)
        return
    assert str(token) == text
    assert token.secret not in repr(token)
    assert token.secret not in mask(f"x {text} y")
    assert SECRET.matches(token, SECRET.digest(token))
    assert not SECRET.matches(token, SECRET.no_digest)
    assert not SECRET.matches(token, SECRET.digest(KeyToken(token.id, token.secret[::-1] + "x")))


ENTITY_TAGS = st.text('W/"*, \t0123456789abc', max_size=40) | st.text(st.characters(max_codepoint=255), max_size=30)


@given(ENTITY_TAGS, st.integers(1, 12))
def test_entity_tags(header: str, version: int) -> None:
    try:
        http_cache.require_match(header, version)
        matches = True
    except (InvalidRequest, PreconditionFailed):
        matches = False
    except PreconditionRequired:
        pytest.fail("there is a header")
    tags = [part.strip() for part in header.split(",")]
    if all(re.fullmatch(r'(W/)?"[0-9a-c]*"', tag) for tag in tags):
        assert matches == (f'"{version}"' in tags)
    if matches:
        assert header.strip() == "*" or f'"{version}"' in header


@given(
    st.text(max_size=40)
    | st.from_regex(r'"[ -~]{0,30}"', fullmatch=True)
    | st.from_regex(r"[!-~]{1,30}", fullmatch=True)
)
def test_idempotency_keys(text: str) -> None:
    try:
        key = idempotency._parse([text])
    except InvalidRequest:
        return
    assert 1 <= len(key) <= 255
    assert key.isascii()
    assert key.isprintable()
    assert idempotency._parse(['"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"']) == key


@given(st.text(max_size=40) | st.from_regex(r"[0-9]{1,20}(@[0-9T:.Z-]{1,30})?", fullmatch=True))
@example("7@2026-01-01T00:00:00Z")
def test_positions_in_the_feed(text: str) -> None:
    try:
        position = FeedPosition.parse(text)
    except NotAPosition:
        return
    assert 0 <= position.seq < 2**63
    assert FeedPosition.parse(position.event_id) == position


@given(st.lists(st.text(max_size=30) | st.from_regex(r"[a-z_]{1,12}(:[A-Za-z ]{1,8})?(=[a-z0-9]{0,5})?"), max_size=4))
@example(["sku:Article", "amount"])
def test_mappings_of_columns(entries: list[str]) -> None:
    try:
        sources = import_columns.parse_mapping(entries)
    except import_columns.MappingError:
        return
    assert sum(map(len, sources.values())) == len(entries)
    assert set(sources) <= set(import_columns.COLUMNS)


@given(st.text(max_size=50) | st.uuids().map(str) | st.text(max_size=20).map(lambda sku: f"sku:{sku}"))
def test_names_of_items(text: str) -> None:
    try:
        key = ItemKey.parse(text)
    except ValueError:
        return
    assert (key.id is None) != (key.sku is None)
    if key.id is not None:
        assert key.id == UUID(text)
    else:
        assert key.sku == text[4:]


@given(
    st.binary(max_size=60)
    | JSONISH.map(lambda value: json.dumps(value).encode())
    | st.text('{}[]",:0123456789.eE-NaInfity', max_size=40).map(str.encode)
)
@example(b"[" * 100_000)
@example(b'{"a":1,"a":2}')
@example(b"1" * 5_000)
def test_json(body: bytes) -> None:
    try:
        found = exact_json.loads(body)
    except json.JSONDecodeError:
        return
    if len(body) >= 100:
        return  # The standard parser takes no number of thousands of digits.
    expected = json.loads(body)
    if b"." not in body and b"e" not in body.lower() and b"N" not in body and b"I" not in body:
        assert found == expected


PIECES = (
    "'",
    '"',
    " ",
    "@",
    ":",
    "/",
    "?",
    "&",
    "=",
    ",",
    "%",
    "%zz",
    "[",
    "]",
    "::1",
    "5432",
    "99999999",
    "a",
    "é",
    "\0",
    "ssl",
    "host",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_database_urls(rest: str) -> None:
    try:
        settings = make_settings(URL.create("postgresql"), database_url=f"postgresql://{rest}")
    except ValidationError:
        return
    assert settings.sqlalchemy_url.drivername == "postgresql+asyncpg"
    assert settings.sqlalchemy_url.database


LONG = 100_000


def _refused(parse: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ValueError, InvalidRequest, PreconditionFailed):
        parse(text)


@pytest.mark.parametrize(
    "piece", [" ", ",", ", ", '"', '"a"', '"a",', '"a" ', "\\", '\\"', "0", "0.", "1-", "sku:", "pb_", "W/", "[", "é"]
)
@pytest.mark.parametrize(
    "parse",
    [
        money.parse,
        instants.parse,
        gtin.is_valid,
        KeyToken.parse,
        mask,
        ItemKey.parse,
        lambda text: http_cache.require_match(text, 1),
        lambda text: http_cache.is_fresh(text, '"1"'),
        lambda text: CURSORS.decode(text, {}),
        lambda text: idempotency._parse([text]),
        lambda text: exact_json.loads(text.encode()),
    ],
)
def test_long_rows_take_no_more_than_their_length(parse: Callable[[str], Any], piece: str) -> None:
    """A parser that went back over what it has read, again and again, would take minutes for these."""
    began = time.monotonic()
    for start, end in (("", ""), ("", "x"), ('"a"', "x"), ('"', "x"), ("2026-01-01", "x")):
        _refused(parse, start + piece * (LONG // len(piece)) + end)
    assert time.monotonic() - began < 30

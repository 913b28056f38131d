import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.pagination import Cursors

cursors = Cursors("a secret of at least thirty-two characters")
FILTERS = {"book": "default", "sku": None}
json_scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_scalars))
def test_a_cursor_leads_back_to_its_position(position: dict[str, object]) -> None:
    assert cursors.decode(cursors.encode(position, FILTERS), FILTERS) == position


def test_a_cursor_belongs_to_its_filters_and_to_its_service() -> None:
    cursor = cursors.encode({"after": 1}, FILTERS)
    for reader, filters in [
        (cursors, {**FILTERS, "book": "wholesale"}),
        (Cursors("another secret of thirty-two characters"), FILTERS),
    ]:
        with pytest.raises(InvalidRequest) as refusal:
            reader.decode(cursor, filters)
        assert refusal.value.errors[0].pointer == "query/cursor"


@given(st.text() | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        cursors.decode(text, FILTERS)


@given(st.integers(0, 10_000), st.sampled_from("ABCab01-_"))
def test_a_changed_cursor_is_refused(place: int, letter: str) -> None:
    cursor = cursors.encode({"after": "x"}, FILTERS)
    place %= len(cursor) - 1  # the last letter holds bits that base64 does not use
    changed = cursor[:place] + letter + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidRequest):
            cursors.decode(changed, FILTERS)

import pytest

from app import http_cache
from app.errors import InvalidRequest, PreconditionFailed, PreconditionRequired


@pytest.mark.parametrize("header", ['"3"', '"1", "3"', "*", ' "3" ', '"", "3"', ',"1",, "3",'])
def test_matching_versions_pass(header: str) -> None:
    http_cache.require_match(header, 3)


@pytest.mark.parametrize("header", ['"2"', 'W/"3"', '"1","2"', '"33"', '""'])
def test_other_versions_and_weak_tags_fail(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        http_cache.require_match(header, 3)


def test_a_change_needs_the_header() -> None:
    with pytest.raises(PreconditionRequired):
        http_cache.require_match(None, 3)


@pytest.mark.parametrize("header", ["", "3", '"3', "'3'", '"1" "2"', ",", "**", 'w/"3"', '"\x00"'])
def test_malformed_headers_are_named(header: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        http_cache.require_match(header, 3)
    assert refusal.value.errors[0].pointer == "header/if-match"


@pytest.mark.parametrize(
    ("header", "fresh"),
    [(None, False), ('"3"', True), ('W/"3"', True), ("*", True), ('"2"', False), ('"1", W/"3"', True)],
)
def test_freshness_compares_weakly(header: str | None, fresh: bool) -> None:
    assert http_cache.is_fresh(header, http_cache.version_tag(3)) is fresh

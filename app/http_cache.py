"""Entity tags and preconditions (RFC 9110, sections 8.8.3 and 13)."""

import re

from app.errors import InvalidRequest, PreconditionFailed, PreconditionRequired

_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# Blanks can be read in one way only: in two, a long row of them would take time by the square of its length.
_LIST = re.compile(rf"[\s,]*{_ENTITY_TAG.pattern}(\s*,[\s,]*{_ENTITY_TAG.pattern})*[\s,]*")


def version_tag(version: int) -> str:
    """The strong entity tag of a version of a resource."""
    return f'"{version}"'


def require_match(if_match: str | None, version: int) -> None:
    """Hold a write to the version that its sender read.

    :raises PreconditionRequired: without an ``If-Match`` header.
    :raises PreconditionFailed: if it names other versions. Weak tags never match a strong comparison.
    """
    if if_match is None:
        raise PreconditionRequired("Send If-Match with the ETag of the version that you read.")
    tags = _tags(if_match, "header/if-match")
    if tags is not None and (False, str(version)) not in tags:
        raise PreconditionFailed(f"The resource is at version {version} now. Read it again and repeat the change.")


def is_fresh(if_none_match: str | None, tag: str) -> bool:
    """Whether the client's copy is current, so that 304 answers. Compares weakly, as the header asks for."""
    if if_none_match is None:
        return False
    tags = _tags(if_none_match, "header/if-none-match")
    return tags is None or any(opaque == tag.strip('"') for _, opaque in tags)


def _tags(header: str, pointer: str) -> list[tuple[bool, str]] | None:
    """The header's tags as (weak, opaque) pairs; ``None`` stands for ``*``."""
    if header.strip() == "*":
        return None
    if not _LIST.fullmatch(header):
        raise InvalidRequest.at(pointer, "not-an-entity-tag", 'must be * or entity tags in double quotes, such as "3"')
    return [(bool(weak), opaque) for weak, opaque in _ENTITY_TAG.findall(header)]

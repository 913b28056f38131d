"""Routers. Their addresses tell apart what the framework's own placeholders would mix up."""

from starlette.convertors import StringConvertor, register_url_convertor

from app.schemas.base import SUB_RESOURCES


class _Item(StringConvertor):
    """An item in an address. Skus may hold slashes, but none ends like the address of what an item has."""

    regex = ".*" + "".join(f"(?<!{ending})" for ending in SUB_RESOURCES)


class _Segment(StringConvertor):
    """A part of an address before a custom method, such as ``:apply``."""

    regex = "[^/:]+"


register_url_convertor("item", _Item())
register_url_convertor("segment", _Segment())

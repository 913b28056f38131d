"""Routers whose operations become routes once, of the application that takes them."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute


class Router(APIRouter):
    """Operations with a prefix and a tag in common.

    FastAPI makes a route of each operation where it is declared, and another one where its router is included: with
    all parameters and models of this service, a tenth of a second each. It also looks in an included router twice
    for the route that a request means. Here the operations are noted, and :meth:`add_to` makes their routes.
    """

    def __init__(self, *, prefix: str = "", tag: str, route_class: type[APIRoute]) -> None:
        super().__init__(prefix=prefix)
        self._tag = tag
        self._route_class = route_class
        self._operations: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Note an operation: the decorators call it."""
        self._operations.append((path, endpoint, options))

    def add_to(self, app: FastAPI, *, prefix: str = "") -> None:
        """Make the routes, in the order of their declarations."""
        own = {"tags": [self._tag], "route_class_override": self._route_class}
        for path, endpoint, options in self._operations:
            app.router.add_api_route(prefix + self.prefix + path, endpoint, **options | own)

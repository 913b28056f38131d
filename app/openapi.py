"""The OpenAPI document, made as exact as the service is: what FastAPI cannot see from the handlers is added to it."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app.problems import MEDIA_TYPE
from app.schemas.base import Input, Output
from app.schemas.problem import Problem

_REFERENCE = "#/components/{}/{}"
_REQUEST_ID = "X-Request-Id"
_COMPONENTS: dict[str, dict[str, Any]] = {
    _REQUEST_ID: {
        "description": "Finds the request in the service's log; the caller's, if it sent one",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Idempotency-Replayed": {
        "description": "The request was answered before: this is that answer",
        "schema": {"const": "true"},
    },
}


def operation_id(route: APIRoute) -> str:
    """The name of its handler, which is unique: generated clients call their methods by it."""
    return route.name


class DocumentedApplication(FastAPI):
    """FastAPI with a document that says more, and room for what answers before it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._front: ASGIApp | None = None

    def put_before(self, make: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a middleware before what FastAPI and Starlette put around all that :meth:`add_middleware` takes."""
        self._front = make(self._front or super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        await (self._front or super().__call__)(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            _complete(super().openapi())
        document: dict[str, Any] = super().openapi()
        return document


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["headers"] = _COMPONENTS
    problem = Problem.model_json_schema(ref_template=_REFERENCE.format("schemas", "{model}"))
    components["schemas"] |= problem.pop("$defs") | {"Problem": problem}
    for model in _models(Input, Output):
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in components["schemas"] and isinstance(extra, dict) and "examples" in extra:
            # FastAPI has left their nulls out, and what answers lack is no answer.
            components["schemas"][model.__name__]["examples"] = extra["examples"]
    for operation in _operations(document):
        parameters = operation.get("parameters", [])
        for parameter in parameters:
            parameter["schema"] = _without_null(parameter["schema"])
            # Its absence has a status of its own, 428, and so is not left to FastAPI.
            parameter["required"] |= parameter["name"] == "if-match"
        names = {parameter["name"] for parameter in parameters}
        if "if-none-match" in names:
            operation["responses"]["304"] = {
                "description": "The copy at hand is current",
                "headers": {"ETag": operation["responses"]["200"]["headers"]["ETag"]},
            }
        for status, response in operation["responses"].items():
            headers = response.setdefault("headers", {})
            headers[_REQUEST_ID] = _header(_REQUEST_ID)
            if "idempotency-key" in names and status.startswith("2"):
                headers["Idempotency-Replayed"] = _header("Idempotency-Replayed")
            if MEDIA_TYPE in response.get("content", {}):
                response["content"][MEDIA_TYPE]["schema"] = {"$ref": _REFERENCE.format("schemas", "Problem")}


def _models(*bases: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for base in bases:
        yield base
        yield from _models(*base.__subclasses__())


def _header(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format("headers", name)}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not, but never null."""
    if "anyOf" not in schema:
        return schema
    kinds = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
    return schema | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})

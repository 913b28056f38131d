"""The API documents itself, completely and without the internet."""

import json
import re

import httpx2
import pytest
from fastapi import FastAPI

from app import errors, exact_json
from app.schemas.base import Output
from app.schemas.item import Item


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_pages_need_nothing_from_elsewhere(client: httpx2.AsyncClient, page: str) -> None:
    html = (await client.get(page)).text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url: ["']([^"']+)|spec-url=["']([^"']+)""", html)
    flat = [address for group in addresses for address in group if address]
    assert any(address.endswith(".js") for address in flat)
    for address in flat:
        assert address.startswith("/"), address
        assert (await client.get(address)).status_code == 200
    assert "https://" not in html


async def test_every_operation_is_described(app: FastAPI) -> None:
    document = app.openapi()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 12
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["description"], name
        assert "503" in operation["responses"], name
        problems = [
            response
            for status, response in operation["responses"].items()
            if not status.startswith("2") and "application/problem+json" in response.get("content", {})
        ]
        assert problems, name
        assert "HTTPValidationError" not in str(operation), f"{name}: 422 is a problem document here"
        bodies = [response["content"] for status, response in operation["responses"].items() if status.startswith("2")]
        assert bodies, name
        if "requestBody" in operation:
            bodies.append(operation["requestBody"]["content"])
        for media_type, content in [entry for body in bodies for entry in body.items()]:
            if media_type != "application/json":
                assert "example" in content or content["examples"], name
                continue
            references = re.findall(r"#/components/schemas/(\w+)", str(content["schema"]))
            assert references, name
            assert all(document["components"]["schemas"][schema]["examples"] for schema in references), name


def test_examples_of_answers_fit_their_schemas() -> None:
    checked = 0
    for model in [*Output.__subclasses__(), *Item.__subclasses__()]:
        extra = model.model_config.get("json_schema_extra")
        for example in extra["examples"] if isinstance(extra, dict) else ():  # type: ignore[union-attr]  # JSON values
            document = exact_json.dumps(model.model_validate(example).model_dump(by_alias=True))
            assert json.loads(document) == example, model
            checked += 1
    assert checked >= 12


async def test_problem_types_have_an_address(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/problems")).json()
    assert [kind["type"] for kind in listed] == [f"/problems/{kind.slug}" for kind in errors.problem_types()]
    for kind in listed:
        assert (await client.get(kind["type"])).json() == kind
        assert kind["description"].endswith(".")
    assert (await client.get("/problems/none")).json()["type"] == "/problems/not-found"

"""What every answer says to browsers, where redirects lead, and which bodies are refused unread."""

import base64
import gzip
import hashlib
import re

import httpx2
import pytest


@pytest.mark.parametrize("path", ["/v1/items", "/nowhere", "/openapi.json", "/v1/items?limit=many", "/docs"])
async def test_every_answer_has_security_headers(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_may_run_its_own_scripts_and_no_others(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    policy = answer.headers["content-security-policy"]
    for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


async def test_a_redirect_leaves_scheme_and_host_to_the_client(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/items?limit=1", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/items/?limit=1")


@pytest.mark.parametrize("path", ["/items/", "/v1/imports"])
async def test_a_compressed_body_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    body = gzip.compress(b'{"name":"Tea","price":1}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")
    assert "without Content-Encoding" in answer.json()["detail"]

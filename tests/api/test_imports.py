import httpx2

Client = httpx2.AsyncClient

CSV = {"content-type": "text/csv"}


async def test_smoke(client: Client) -> None:
    body = "sku,name,amount,tax_rate,valid_from\r\nA,Apple,1.50,19,2026-01-01\r\nB,Bear,2,7,2026-01-01\r\nA,,1.20,19,2027-01-01\r\nC,,x,,\r\n"
    answer = await client.post("/v1/imports", content=body, headers=CSV)
    print(answer.status_code, answer.text)
    assert answer.status_code == 201
    run = answer.json()
    rows = await client.get(f"/v1/imports/{run['id']}/rows")
    print(rows.text)
    f = await client.get(f"/v1/imports/{run['id']}/rows?status=error&format=file")
    print(f.text)
    a = await client.post(f"/v1/imports/{run['id']}:apply")
    print(a.text)
    answer = await client.post("/v1/imports?on_error=skip&missing=end", content=body, headers=CSV)
    print(answer.json())
    a = await client.post(f"/v1/imports/{answer.json()['id']}:apply")
    print(a.text)
    print((await client.get("/v1/items/sku:A/price")).text)
    answer = await client.post(
        "/v1/imports?on_error=skip&missing=end&mode=apply", content="sku,amount\nA,20\nB,3", headers=CSV
    )
    print(answer.json())
    rows = await client.get(f"/v1/imports/{answer.json()['id']}/rows?order=change")
    print(rows.text)
    assert True

"""`pricebook demo`: a sample price list goes in over HTTP, and three questions show what as-of means."""

import csv
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.client import KEY_VARIABLE

_SHOWN = "PB-1001"
"""The item that the questions are about: it has a past, a present, a sale and a future price in the sample."""


class DemoError(Exception):
    """The service could not be reached or refused the list; the message says why."""


async def run(file: Path, url: str) -> None:
    """Load the list, unless it is there already, and show the price of one item 30 days ago, now, and in 30 days.

    :raises DemoError: if the service is away or does not take the list.
    """
    console = Console()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    items = list(_read(file, today))
    try:
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(base_url=url, timeout=10, headers=headers) as client:
            new = 0
            for item, prices in track(items, "Loading", console=console):
                new += await _load(client, item, prices)
            console.print(f"{new} new items of {len(items)}; the others were there already.")
            console.print(await _questions(client, today))
    except httpx2.TransportError as error:
        raise DemoError(f"No service answers at {url}: {error}. Start one with: make run") from None
    address = f"{url}/v1/items/sku:{_SHOWN}/price?at={today + timedelta(days=30):%Y-%m-%d}"
    console.print(f"The same by hand: curl '{address}'", soft_wrap=True)


def _read(file: Path, today: datetime) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Items with their price rows. Days in the file count from today, so that the sample never grows old."""

    def instant(days: str) -> str | None:
        return (today + timedelta(days=int(days))).isoformat() if days else None

    with file.open(newline="", encoding="utf-8") as lines:
        for _, group in groupby(csv.DictReader(lines), key=lambda row: row["sku"]):
            rows = list(group)
            item = {name: rows[0][name] or None for name in ("sku", "name", "gtin")} | {"unit": rows[0]["unit"]}
            prices = [
                {
                    "amount": row["amount"] or None,
                    "per": row["per"],
                    "min_quantity": row["min_quantity"],
                    "tax_rate": row["tax_rate"],
                    "valid_from": instant(row["from_day"]),
                    "valid_to": instant(row["to_day"]),
                    "reason": row["reason"] or None,
                }
                for row in rows
            ]
            yield item, prices


async def _load(client: httpx2.AsyncClient, item: dict[str, Any], prices: list[dict[str, Any]]) -> bool:
    answer = await client.post("/v1/items", json=item)
    new = answer.status_code != 409
    if new:
        _check(answer)
    address = f"/v1/items/sku:{item['sku']}/prices"
    recorded = await client.get(address, params={"rows": "true"})
    _check(recorded)
    # Where an earlier run was cut off, the rest follows.
    for price in prices[len(recorded.json()["rows"]) :]:
        _check(await client.post(address, json=price))
    return new


def _check(answer: httpx2.Response) -> None:
    if answer.is_error:
        raise DemoError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}: {answer.text}")


async def _questions(client: httpx2.AsyncClient, today: datetime) -> Table:
    table = Table(title=f"What does {_SHOWN} cost?")
    for heading in ("as of", "net", "tax", "gross", "from", "until", "reason"):
        table.add_column(heading, no_wrap=heading != "reason")
    for days in (-30, 0, 30):
        at = today + timedelta(days=days)
        answer = await client.get(f"/v1/items/sku:{_SHOWN}/price", params={"at": at.isoformat()})
        _check(answer)
        price = answer.json()
        table.add_row(
            f"{at:%Y-%m-%d}",
            *(f"{price['display'][part]} {price['currency']}" for part in ("net", "tax", "gross")),
            price["valid_from"][:10],
            (price["effective_until"] or "open")[:10],
            price["reason"] or "",
        )
    return table

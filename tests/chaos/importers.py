"""Imports: files of some hundred to some thousand rows, previewed and applied, cut off at any moment, sent again."""

import asyncio
import csv
import io
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

import httpx2

from tests.chaos.caller import Caller, pause, slug
from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Applied, Record

_SKUS = 3_000
_FAT = 1_200
"""Characters of a description that make some thousand rows reach the staging table in several batches."""
_CHUNK = 65_536
_GOES_ON_SECONDS = 60
"""So long at most a server may go on with an upload whose client is gone, which it has in full."""

Phase = Literal["upload", "apply"]


class _HungUp(Exception):
    """The importer itself goes away in the middle of its upload."""


class Importer:
    """Sends one file after the other about items of its own."""

    def __init__(self, name: str, fleet: Fleet, record: Record, seed: str, *, most_rows: int = 2_000) -> None:
        self.phase: Phase | None = None
        self.server: Server | None = None
        """That it speaks to at the moment."""
        self._name = name
        self._fleet = fleet
        self._record = record
        self._caller = Caller(fleet, record)
        self._dice = random.Random(seed)
        self._most_rows = most_rows
        self._files = 0
        self._lost_at = float("-inf")
        """When an upload that was to be applied was last not answered."""

    async def run(self) -> None:
        """Import until cancelled."""
        try:
            while True:
                await self._dice.choices(
                    [self._preview_and_apply, self._apply_at_once, self._hang_up, self._conflict], [5, 4, 1, 1]
                )[0]()
                await pause(self._dice.uniform(0.1, 0.6))
        finally:
            await self._caller.close()

    async def _preview_and_apply(self) -> None:
        preview = await self._upload_until_answered(self._file(), mode="preview")
        if preview is not None:
            await self._apply_until_answered(preview["id"])

    async def _apply_at_once(self) -> None:
        document = await self._upload_until_answered(self._file(), mode="apply")
        if document is None:
            return
        if document["state"] != "applied":
            self._record.violation(f"an import with mode=apply is answered as {document}")
            return
        self._applied(document)

    async def _hang_up(self) -> None:
        self._record.counts["uploads that the client cut off"] += 1
        file = self._file()
        with suppress(_HungUp):
            await self._upload(
                file, self._fleet.any(self._dice), mode="apply", until=self._dice.randrange(len(file[1]))
            )

    async def _conflict(self) -> None:
        """Two previews of one list: when the second is applied, the first no longer holds."""
        rows = self._rows()
        first, second = [
            await self._upload_until_answered(self._file(self._repriced(rows)), mode="preview") for _ in range(2)
        ]
        if first is None or second is None or not await self._apply_until_answered(second["id"]):
            return
        while True:
            answer = await self._ask("apply", "POST", f"/v1/imports/{first['id']}:apply")
            if answer is not None and answer.status_code != 503:
                break
            await pause()
        if answer.status_code != 409:
            self._record.violation(f"a preview that no longer holds: {answer.status_code} {answer.text[:500]}")
            return
        # Not open: it was closed before, and that answer was lost.
        assert slug(answer) in ("import-conflict", "import-not-open"), answer.text
        self._record.not_applied.add(first["id"])

    async def _upload_until_answered(self, file: tuple[str, bytes], *, mode: str) -> dict[str, Any] | None:
        """Send a file, and send it again if the answer is missing or asks for it."""
        while True:
            answer = await self._upload(file, self._fleet.any(self._dice), mode=mode)
            if answer is not None and answer.is_success:
                document: dict[str, Any] = answer.json()
                return document
            if answer is not None and answer.status_code < 500 and not self._meets_a_lost_one(answer):
                self._record.violation(f"an import (mode={mode}) is refused: {answer.status_code} {answer.text[:500]}")
                return None
            self._record.counts["uploads cut off or refused"] += 1
            if mode == "apply" and (answer is None or answer.status_code == 503):
                self._lost_at = time.monotonic()
            await pause(0.5)

    def _meets_a_lost_one(self, answer: httpx2.Response) -> bool:
        """Whether it was refused because an upload of before, which nobody heard of again, was applied meanwhile."""
        lost = slug(answer) == "import-conflict" and time.monotonic() - self._lost_at < _GOES_ON_SECONDS
        self._record.counts["imports that met one whose answer was lost"] += lost
        return lost

    async def _upload(
        self, file: tuple[str, bytes], server: Server, *, mode: str, until: int | None = None
    ) -> httpx2.Response | None:
        kind, body = file
        slow = self._dice.random() < 0.4 or until is not None

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), _CHUNK):
                if until is not None and start >= until:
                    raise _HungUp
                yield body[start : start + _CHUNK]
                await asyncio.sleep(0.05 if slow else 0)
            if until is not None:
                raise _HungUp

        self.phase, self.server = "upload", server
        try:
            return await self._caller.ask(
                server,
                "POST",
                "/v1/imports",
                params={"mode": mode},
                content=chunks(),
                headers={"content-type": kind},
            )
        finally:
            self.phase = None

    async def _apply_until_answered(self, import_id: str) -> bool:
        cut = False
        while True:
            answer = await self._ask("apply", "POST", f"/v1/imports/{import_id}:apply")
            if answer is not None and answer.status_code != 503:
                break
            cut = await self._look_after_cut(import_id)
        if self._meets_a_lost_one(answer):
            self._record.not_applied.add(import_id)
            return False
        if answer.status_code != 200:
            self._record.violation(f"an apply{' after a cut' if cut else ''}: {answer.status_code} {answer.text[:500]}")
            return False
        self._applied(answer.json())
        return True

    async def _look_after_cut(self, import_id: str) -> bool:
        """Whoever asks is told whether everything happened or nothing, as soon as anything is answered."""
        while True:
            await pause(0.3)
            answer = await self._ask(None, "GET", f"/v1/imports/{import_id}")
            if answer is not None and answer.status_code != 503:
                break
        state = answer.json().get("state")
        if state not in ("applied", "previewed"):
            self._record.violation(f"an import whose apply was cut off: {answer.status_code} {answer.text[:500]}")
        self._record.counts[f"applies cut off: {'everything' if state == 'applied' else 'nothing yet'} written"] += 1
        return True

    async def _ask(self, phase: Phase | None, method: str, path: str) -> httpx2.Response | None:
        self.phase, self.server = phase, self._fleet.any(self._dice)
        try:
            return await self._caller.ask(self.server, method, path)
        finally:
            self.phase = None

    def _applied(self, document: dict[str, Any]) -> None:
        counts = document["counts"]
        self._record.applied.append(
            Applied(document["id"], document["first_seq"], document["last_seq"], counts["create"] + counts["change"])
        )

    def _rows(self) -> list[dict[str, str]]:
        count = self._dice.randint(200, self._most_rows)
        fat = self._dice.random() < 0.5
        return [
            {
                "sku": f"{self._name}-{number}",
                "name": f"Article {number}",
                "description": "x" * _FAT if fat else "short",
                "amount": "",
                "tax_rate": "19",
            }
            for number in self._dice.sample(range(_SKUS), min(count, _SKUS))
        ]

    def _repriced(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        # From 100.00 to 139.99: no price changes by more than max_change_percent.
        return [row | {"amount": f"{self._dice.randrange(10_000, 14_000) / 100:.2f}"} for row in rows]

    def _file(self, rows: list[dict[str, str]] | None = None) -> tuple[str, bytes]:
        """Media type and content; no two are the same."""
        self._files += 1
        token = f"{self._name} file {self._files}"
        rows = [row | {"reason": token} for row in (rows or self._repriced(self._rows()))]
        if self._dice.random() < 0.5:
            return "application/x-ndjson", "".join(json.dumps(row) + "\n" for row in rows).encode()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return "text/csv", text.getvalue().encode()

"""`pricebook follow`, killed now and then; its copy must be right at every moment."""

import asyncio
import json
import os
import random
import signal
import subprocess
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.chaos.record import Record
from tests.support.processes import PRICEBOOK, environment


class CopyKeeper:
    """Runs the command on one file."""

    def __init__(self, fleet: Fleet, record: Record, directory: Path, seed: str) -> None:
        self._fleet = fleet
        self._record = record
        self._directory = directory
        self._dice = random.Random(seed)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Follow one of the servers; go on where the file ends. It says itself when it gives up."""
        with (self._directory / "follow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PRICEBOOK, "follow", "copy.sqlite3"],
                cwd=self._directory,
                env=environment(pricebook_url=self._fleet.any(self._dice).address, pricebook_key=self._fleet.key),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL it."""
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._directory / "follow.log").read_text()
            self._record.violation(f"pricebook follow gave up: {log[-500:]}")
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=30)

    async def verify(self) -> int:
        """Catch up with each server, and compare with a fresh snapshot; returns the seq of the copy."""
        seq = 0
        for server in self._fleet.servers:
            process = await asyncio.create_subprocess_exec(
                PRICEBOOK,
                "follow",
                "copy.sqlite3",
                "--once",
                "--verify",
                "--json",
                cwd=self._directory,
                env=environment(pricebook_url=server.address, pricebook_key=self._fleet.key),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            if process.returncode != 0:
                self._record.violation(f"pricebook follow --verify: {process.returncode} {output.decode()[-1000:]}")
                return seq
            seq = int(json.loads(output.splitlines()[-1])["seq"])
        return seq

"""The long run: `python -m tests.chaos --rounds 100 --seed 1`. Exit code 1 if anything is not as it must be."""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos import campaign, report


def main() -> int:
    """Run, print the tables, and write them to a page if one is named."""
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the order of faults, their lengths, and files")
    parser.add_argument("--page", type=Path, help="where the tables go, between two markers")
    options = parser.parse_args()
    print(f"Seed {options.seed}, {options.rounds} rounds", flush=True)
    started = time.monotonic()
    # However it is told to stop, what it started stops with it: by SIGINT asyncio cancels what runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    directory = Path(tempfile.mkdtemp(prefix="pricebook-chaos-"))
    run = campaign.Campaign(directory, options.seed)
    asyncio.run(run.run(campaign.chosen(options.rounds, run.dice)))
    minutes = (time.monotonic() - started) / 60
    text = (
        f"`make chaos ROUNDS={options.rounds} SEED={options.seed}` on {datetime.now(UTC):%Y-%m-%d} took "
        f"{minutes:.0f} minutes.\n\n{report.tables(run)}"
    )
    print(f"\n{text}")
    for name, count in sorted(run.record.counts.items()):
        if name.startswith("warnings: "):
            print(f"{name}: {count}")
    if options.page:
        report.write(options.page, text)
    if run.record.violations:
        print(f"The logs are in {directory}.")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())

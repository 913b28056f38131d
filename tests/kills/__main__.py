"""The long run: `python -m tests.kills --rounds 60 --seed 1`. Exit code 1 if anything is not as it must be."""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.kills import campaign, report


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="tests.kills")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the order of victims, moments and files")
    options = parser.parse_args()
    print(f"Seed {options.seed}, {options.rounds} rounds", flush=True)
    started = time.monotonic()
    # However it is told to stop, what it started stops with it.
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="pricebook-kills-"))
    run = campaign.Campaign(directory, options.seed)
    asyncio.run(run.run(campaign.cases(options.rounds, run.dice)))
    print(f"\n{report.table(run)}\n\nSeed {options.seed}, {time.monotonic() - started:.0f} s")
    if run.record.violations:
        print(f"The logs are in {directory}.")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())

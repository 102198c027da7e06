"""`python -m tests.chaos`: linearizability, for as long as one likes."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

from .recorder import perform, perform_again
from .registers import run


def main() -> int:
    """Run from the command line; 1 = something was not linearizable."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--send-again", action="store_true", help="break the client: it repeats writes whose answer was lost"
    )
    parser.add_argument(
        "--repeat-writes",
        action="store_true",
        help="let the client repeat plain writes, as its option of that name does",
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    how = perform_again if options.send_again else perform
    report = asyncio.run(run(options.seconds, options.seed, perform=how, repeat_writes=options.repeat_writes))
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

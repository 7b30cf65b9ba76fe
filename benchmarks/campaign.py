"""`make campaign`: every claim at full size, one after the other, with its table."""

import sys

from benchmarks import kills, seeds

CLAIMS = {"exact match by length, five seeds": seeds.main, "runs killed in each stage": kills.main}


def main() -> int:
    """Run all; 1 if one failed."""
    failed = False
    for title, claim in CLAIMS.items():
        print(f"\n## {title}\n", flush=True)
        failed |= bool(claim([]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

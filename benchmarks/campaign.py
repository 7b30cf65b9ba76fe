"""`make campaign`: measures every claim at full size and prints its table."""

import sys
import traceback

from benchmarks import (
    certified_seeds,
    checkpoint_fuzz,
    float32_steps,
    fuzz,
    kills,
    refusals,
    scheduled_runs,
    seeds,
    serving_throughput,
    streaming,
    swaps,
)

CLAIMS = {
    "trained and proven, a hundred seeds": certified_seeds.main,
    "exact match by length, five seeds": seeds.main,
    "runs killed in each stage": kills.in_stages,
    "runs killed at random moments": kills.at_random_moments,
    "broken certificates and models": refusals.main,
    "forged checkpoints": checkpoint_fuzz.main,
    "float32 steps of certified models": float32_steps.main,
    "a hundred version swaps under traffic": swaps.main,
    "malformed requests": fuzz.main,
    "requests per second": serving_throughput.main,
    "long numbers": streaming.main,
    "scheduled runs": scheduled_runs.main,
}


def main() -> int:
    """Run all; 1 if one failed."""
    failed = False
    for title, claim in CLAIMS.items():
        print(f"\n## {title}\n", flush=True)
        try:
            failed |= bool(claim([]))
        except Exception:
            # The tables of the other claims are worth hours.
            traceback.print_exc()
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The version labels that a rollout sets and clients ask for."""

STABLE = "stable"
CANARY = "canary"
# The version that `bitsum rollback` restores; it stays loaded, so a rollback is immediate.
PREVIOUS = "previous"
LABELS = (STABLE, CANARY, PREVIOUS)

"""The version labels that a rollout sets and clients ask for."""

STABLE = "stable"
CANARY = "canary"
# `bitsum rollback` goes back to it; it stays loaded, so a rollback waits for no loading.
PREVIOUS = "previous"
LABELS = (STABLE, CANARY, PREVIOUS)

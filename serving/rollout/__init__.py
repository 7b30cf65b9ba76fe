"""Rollout of a new version, and rollback."""

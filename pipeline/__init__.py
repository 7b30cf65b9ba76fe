"""Wiring and configuration: the steps, their order and knobs, and where they run."""

"""Wiring and configuration: which steps run, in which order, with which knobs, where."""

"""Compares a model server with what a real TensorFlow Serving 2.16.1 was recorded to answer: `python -m
tests.conformance`."""

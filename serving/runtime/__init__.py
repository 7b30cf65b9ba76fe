"""Runs a SavedModel: loading, decoding, batching, prediction."""

"""Datasets: sampling, TFRecord files, spans, logged requests."""

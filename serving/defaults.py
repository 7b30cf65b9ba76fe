"""Defaults that every client of a model server shares; those of the served model are knobs of components.settings."""

from components.settings import Serve

SERVER = f"{Serve.host}:{Serve.port}"
MODEL_NAME = Serve.model_name
DEADLINE = Serve.deadline
# All pauses together take 2.5 seconds on average, long enough for a quick restart of the server.
ATTEMPTS = 7
# TensorFlow Serving accepts as many on a machine with one CPU (--grpc_max_threads).
CONCURRENT_CALLS = 4
# Rows of a call: as many as TensorFlow Serving takes into a batch by default (max_batch_size).
BATCH_SIZE = 1000

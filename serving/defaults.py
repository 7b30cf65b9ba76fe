"""Defaults that every client of a model server shares; those of the served model are knobs of components.settings."""

from components.settings import Serve

SERVER = f"{Serve.host}:{Serve.port}"
MODEL_NAME = Serve.model_name
DEADLINE = Serve.deadline
# gRPC allows no more. All pauses together take about 2 seconds, long enough for a quick restart of the server.
MAX_ATTEMPTS = 5

"""How concurrent requests are put into batches: TensorFlow Serving's BatchingParameters and its defaults.

The defaults are those of TensorFlow's shared_batch_scheduler.h. All values are looked at when the file is read, so that
a bad file stops the start. Large requests are not split, and inputs of different lengths never padded: serving.runtime.batching
says why.
"""

import dataclasses
import os
import pathlib

from components.errors import ConfigError

_LEAST = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """Sizes are numbers of rows (dimension 0 of every input), the timeout is in microseconds.

    max_batch_size: most rows of a request and of a batch.
    batch_timeout_micros: how long a request may wait for others while a thread is free.
    max_enqueued_batches: waiting batches beyond which requests are refused as UNAVAILABLE.
    num_batch_threads: batches that run side by side.
    allowed_batch_sizes: a batch is padded up to the next of them; empty: batches stay as they are.

    Raises:
        ConfigError: a value is impossible.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=_available_cpus)
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self):
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")
        sizes = self.allowed_batch_sizes
        if sizes and ([*sizes] != sorted({*sizes}) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise ConfigError(
                f"allowed_batch_sizes = {[*sizes]}: must grow from 1 or more to max_batch_size, {self.max_batch_size}"
            )

    def padded_size(self, size: int) -> int:
        """The smallest allowed size that holds `size` rows; `size` itself where none is given or none holds it."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def read(path: pathlib.Path | None) -> BatchingParameters:
    """The parameters in a text file, or those of `--enable_batching` alone.

    Raises:
        ConfigError: the file cannot be read or parsed, a value is impossible, or large requests are to be split; the
        text names
            the file.
    """
    if path is None:
        return BatchingParameters()
    from serving import config_protos

    message = config_protos.parse_text(config_protos.messages().BatchingParameters, path)
    if message.enable_large_batch_splitting.value:
        raise ConfigError(
            f"--batching_parameters_file {path}: enable_large_batch_splitting: large requests are not split here"
        )
    known = {field.name for field in dataclasses.fields(BatchingParameters)}
    # Most numbers are wrapped, which tells 0 from not given.
    given = {field.name: getattr(value, "value", value) for field, value in message.ListFields() if field.name in known}
    try:
        return BatchingParameters(**{**given, "allowed_batch_sizes": tuple(message.allowed_batch_sizes)})
    except ConfigError as error:
        raise ConfigError(f"--batching_parameters_file {path}: {error}") from error

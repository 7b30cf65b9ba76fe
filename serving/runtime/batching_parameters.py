"""How concurrent requests are put into batches: TensorFlow Serving's BatchingParameters and its defaults.

The defaults are those of TensorFlow's shared_batch_scheduler.h. All values are checked when the file is read, so that
a bad file stops the start. Large requests are not split, and inputs of different lengths are never padded:
serving.runtime.batching says why.
"""

import dataclasses
import os
import pathlib

from components.errors import ConfigError

_MINIMA = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """Sizes in rows (dimension 0 of every input), the timeout in microseconds.

    max_batch_size: the limit for a request and for a batch.
    batch_timeout_micros: how long a request waits for others while a thread is free.
    max_enqueued_batches: the limit of waiting batches; further requests are refused as UNAVAILABLE.
    num_batch_threads: batches that run concurrently.
    allowed_batch_sizes: a batch is padded to the next of these; empty for no padding.

    Raises:
        ConfigError: an invalid value.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=_available_cpus)
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {minimum}")
        sizes = self.allowed_batch_sizes
        if sizes and ([*sizes] != sorted({*sizes}) or sizes[0] < 1 or sizes[-1] != self.max_batch_size):
            raise ConfigError(
                f"allowed_batch_sizes = {[*sizes]}: must grow from 1 or more to max_batch_size, {self.max_batch_size}"
            )

    def padded_size(self, size: int) -> int:
        """The smallest allowed size of at least `size` rows; `size` itself if there is none."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def read(path: pathlib.Path | None) -> BatchingParameters:
    """The parameters in the text file `path`; None gives those of `--enable_batching` alone.

    Raises:
        ConfigError: an unreadable file, an invalid value, or the splitting of large requests; the text names the file.
    """
    if path is None:
        return BatchingParameters()
    from serving import config_protos

    message = config_protos.parse_text(config_protos.messages().BatchingParameters, path)
    if message.enable_large_batch_splitting.value:
        raise ConfigError(
            f"--batching_parameters_file {path}: enable_large_batch_splitting: bitsum does not split large requests; "
            "remove the line"
        )
    names = {field.name for field in dataclasses.fields(BatchingParameters)}
    # Most numbers are wrapped, which distinguishes 0 from an absent value.
    given = {field.name: getattr(value, "value", value) for field, value in message.ListFields() if field.name in names}
    try:
        return BatchingParameters(**{**given, "allowed_batch_sizes": tuple(message.allowed_batch_sizes)})
    except ConfigError as error:
        raise ConfigError(f"--batching_parameters_file {path}: {error}") from error

"""How concurrent requests are put into batches: TensorFlow Serving's BatchingParameters, its defaults and its refusals.

The defaults are those of TensorFlow's shared_batch_scheduler.h. TensorFlow Serving looks at most parameters only when it loads
a model; here all of them are looked at when the file is read, so that a bad file stops the start.
"""

import dataclasses
import os
import pathlib

from components.errors import ConfigError

_SERVER_THREADS = "model_server_batch_threads"


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """Sizes are numbers of rows (dimension 0 of every input), the timeout is in microseconds.

    max_batch_size: most rows of one request, and of one batch unless large requests are split.
    batch_timeout_micros: how long a request may wait for others while a thread is free.
    max_enqueued_batches: waiting batches beyond which requests are refused as UNAVAILABLE.
    num_batch_threads: batches that run side by side; None is the number of CPUs.
    allowed_batch_sizes: a batch is padded up to the next of them; empty: batches stay as they are.
    pad_variable_length_inputs: rows of different lengths are padded to the longest.
    enable_large_batch_splitting: a request may be cut into batches of max_execution_batch_size rows (None: max_batch_size).

    Raises:
        ConfigError: a value is impossible; the texts are TensorFlow Serving's.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int | None = None
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    def __post_init__(self):
        for name, value in self._resolved().items():
            object.__setattr__(self, name, value)
        self._check_sizes()
        self._check_queue()
        self._check_allowed()

    def padded_size(self, size: int) -> int:
        """The smallest allowed size that holds `size` rows; `size` itself where none is given or none holds it."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)

    def _resolved(self) -> dict[str, int]:
        """Values that depend on the machine or on other values."""
        threads = _available_cpus() if self.num_batch_threads is None else self.num_batch_threads
        execution = self.max_execution_batch_size
        if execution is None or not self.enable_large_batch_splitting:
            execution = self.max_batch_size
        # Models that gave 0 have always got 1 from TensorFlow.
        batches = 1 if self.max_enqueued_batches == 0 and not self.enable_large_batch_splitting else self.max_enqueued_batches
        return {"num_batch_threads": threads, "max_execution_batch_size": execution, "max_enqueued_batches": batches}

    def _check_sizes(self) -> None:
        if self.max_batch_size < 1:
            raise ConfigError(f"input_batch_size_limit must be positive; was {self.max_batch_size} (it is max_batch_size)")
        if self.max_execution_batch_size < 1:
            raise ConfigError(f"max_execution_batch_size must be positive; was {self.max_execution_batch_size}")
        if self.max_batch_size < self.max_execution_batch_size:
            raise ConfigError(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size. They were {self.max_batch_size} (max_batch_size) and {self.max_execution_batch_size}"
            )

    def _check_queue(self) -> None:
        if self.num_batch_threads < 1:
            raise ConfigError(f"num_batch_threads must be positive; was {self.num_batch_threads}")
        if self.batch_timeout_micros < 0:
            raise ConfigError(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.max_enqueued_batches < 1:
            raise ConfigError(f"max_enqueued_batches must be positive; was {self.max_enqueued_batches}")

    def _check_allowed(self) -> None:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if any(size < 1 for size in sizes):
            raise ConfigError(f"allowed_batch_sizes entries must be positive; were {_listed(sizes)}")
        if any(first >= second for first, second in zip(sizes, sizes[1:])):
            raise ConfigError(f"allowed_batch_sizes entries must be monotonically increasing; were {_listed(sizes)}")
        if sizes[-1] != self.max_batch_size:
            raise ConfigError(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; expected {self.max_batch_size}"
            )


def read(path: pathlib.Path | None) -> BatchingParameters:
    """The parameters in a text file, or those of `--enable_batching` alone.

    Raises:
        ConfigError: the file cannot be read or parsed, or a value is impossible; the text names the file.
    """
    if path is None:
        return BatchingParameters(thread_pool_name=_SERVER_THREADS)
    from serving import server_protos

    message = server_protos.parse_text(server_protos.messages().BatchingParameters, path)
    # Most numbers are wrapped, which tells 0 from not given.
    given = {field.name: getattr(value, "value", value) for field, value in message.ListFields()}
    try:
        return BatchingParameters(**{**given, "allowed_batch_sizes": tuple(message.allowed_batch_sizes)})
    except ConfigError as error:
        raise ConfigError(f"--batching_parameters_file {path}: {error}") from error


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))

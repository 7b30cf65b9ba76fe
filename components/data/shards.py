"""The shard files of a split, named as TFX names them: {uri}/Split-{split}/data_tfrecord-{shard}-of-{shards}.gz."""

import os

import tensorflow as tf


def shard_path(uri: str, split: str, shard: int, shards: int) -> str:
    """The path of a shard."""
    return os.path.join(uri, f"Split-{split}", f"data_tfrecord-{shard:05d}-of-{shards:05d}.gz")


def split_files(uri: str, split: str) -> list[str]:
    """The files of a split, relative to `uri`, sorted. Their names do not matter: TFX's Trainer reads all of them."""
    paths = tf.io.gfile.glob(os.path.join(uri, f"Split-{split}", "*"))
    # Beam may leave empty folders beside the files.
    return sorted(os.path.relpath(path, uri) for path in paths if not tf.io.gfile.isdir(path))

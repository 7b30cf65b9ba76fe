"""Serialized tf.Examples, made without the code of the pipeline."""

from collections.abc import Sequence

import tensorflow as tf

from components.task.addition import to_bits


def example(**lists: Sequence[int]) -> bytes:
    """With these lists of integers as features."""
    made = tf.train.Example()
    for name, values in lists.items():
        made.features.feature[name].int64_list.value.extend(values)
    return made.SerializeToString(deterministic=True)


def example_of(a: int, b: int, length: int) -> bytes:
    """With the bits of two numbers and without what comes of them."""
    return example(a=to_bits(a, length), b=to_bits(b, length))

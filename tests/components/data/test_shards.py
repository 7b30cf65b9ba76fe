"""The shard files of a split."""

import pytest

from components.data.shards import split_files

pytestmark = pytest.mark.fast


def test_folders_among_the_files_are_skipped(tmp_path):
    (tmp_path / "Split-train" / "beam-temp-data").mkdir(parents=True)
    (tmp_path / "Split-train" / "data_tfrecord-1.gz").touch()
    assert split_files(str(tmp_path), "train") == ["Split-train/data_tfrecord-1.gz"]

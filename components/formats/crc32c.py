"""The checksum in TFRecords and in TensorFlow's tables: CRC-32C, masked."""

import google_crc32c


def masked(data: bytes) -> int:
    """CRC-32C of `data`, rotated and shifted so that data that contains such checksums is protected as well."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

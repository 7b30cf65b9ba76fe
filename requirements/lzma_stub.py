"""`_lzma` for the packaged CPython 3.10, built without liblzma: `import lzma` works, its use is an error."""

FORMAT_AUTO, FORMAT_XZ, FORMAT_ALONE, FORMAT_RAW = range(4)


class LZMAError(Exception):
    """What `lzma` raises for data that it cannot read or write."""


def _missing(*_args: object, **_options: object) -> None:
    raise LZMAError("this Python is built without liblzma and cannot read or write xz files; use another Python 3.10")


LZMACompressor = LZMADecompressor = is_check_supported = _missing
_encode_filter_properties = _decode_filter_properties = _missing

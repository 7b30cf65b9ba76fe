"""What holds for every test."""

import signal


def pytest_configure() -> None:
    # A shell starts what runs in the background with SIGINT ignored, and whatever a test starts then ignores it as
    # well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

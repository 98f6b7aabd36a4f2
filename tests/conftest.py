"What several test files need."
import signal
import pytest


@pytest.fixture
def interruptible():
    "Ctrl-C reaches the test even where the tests were started in the background, which begins with it ignored."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

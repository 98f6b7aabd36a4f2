"What several test files need."
import signal
import pytest


@pytest.fixture
def interruptible():
    "Ctrl-C reaches the test even where the tests were started in the background, which begins with it ignored."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope='module')
def one_thread():
    "One thread for torch: for models so small that a second one only waits."
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch):
    "A test that looks for the hub fails at once."
    def refuse(*a, **k): raise AssertionError('the network was asked')
    monkeypatch.setattr('socket.getaddrinfo', refuse)
    monkeypatch.setattr('socket.socket.connect', refuse)


@pytest.fixture
def threads():
    "What a test does to the number of torch's threads ends with it."
    import torch
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

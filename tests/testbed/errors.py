"""What can go wrong with a bed; always a TestbedError with one sentence."""


class TestbedError(Exception):
    """A bed or one of its hosts could not do what was asked."""

    __test__ = False  # pytest takes every class called Test… for a test

"""For every test: random tests say how to repeat them, and are not judged by the clock of a noisy machine."""

from hypothesis import settings

settings.register_profile("tocsin", deadline=None, print_blob=True)
settings.load_profile("tocsin")

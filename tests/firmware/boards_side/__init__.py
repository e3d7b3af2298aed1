"""Scripts that tests run on MicroPython."""

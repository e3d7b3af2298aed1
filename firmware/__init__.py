"""The button: firmware that runs on MicroPython, and whose pure modules also run on CPython."""

VERSION = "0.1.0"

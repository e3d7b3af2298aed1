"""The button: its pure parts on both Pythons, and the whole of it under real MicroPython."""

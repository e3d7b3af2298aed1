"""`make bench-firmware`: the button's MQTT client beside those that people use on MicroPython."""

"""`tocsin check`: what is wrong with a station's settings, with the files that they name, and with the machine."""

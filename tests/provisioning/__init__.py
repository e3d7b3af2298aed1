"""The technician's bench, tried on a virtual board behind a real serial port."""

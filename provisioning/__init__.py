"""The technician's bench: a bare ESP32 becomes a trusted button over a serial cable."""

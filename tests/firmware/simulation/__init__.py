"""The firmware under simulated faults: the real button and the real session, on simulated time, flash and network."""

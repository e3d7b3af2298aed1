"""The button's hardware: pin map, loop, parts and wiring, computed and checked from four YAML sources."""

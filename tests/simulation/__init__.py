"""The whole system under a simulated clock, disk and network: see docs/architecture.md, "The simulator"."""

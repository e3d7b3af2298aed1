"""The console in a real browser, before the real system."""

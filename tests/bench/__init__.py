"""Measures a press's way to headquarters and back, beside the pipeline that a user would pick instead."""

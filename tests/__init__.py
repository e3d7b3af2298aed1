"""Mirrors the house: one folder of tests for each folder of code."""

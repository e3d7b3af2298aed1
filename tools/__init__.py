"""What a fresh clone needs before anything else runs. Only the standard library is used here."""

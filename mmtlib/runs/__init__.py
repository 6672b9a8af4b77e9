"""Runs: where everything trained lives once, how it is checked before, trained, and many of them at a time."""

"""Ratios against a baseline of the same minute on the same machine: `python -m bench`."""

r"""Scans: linear recurrences over all steps at once."""

r"""Times and memory, as ratios within one run on one machine."""

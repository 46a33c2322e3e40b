r"""Runs every Python block of a Markdown page, and shows that it did.

`extract` finds the blocks that the site renders as Python, `plugin` hands them to
pytest, `run` executes them, `output` compares what they print, `stamps` and `badges`
record and show runs on a GPU, and `audit` compares the built site with what ran.
"""

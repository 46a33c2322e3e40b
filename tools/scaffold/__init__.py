r"""`nox -s new -- recurrent/name --layer Name`: a concept laid out, to be filled in.

What is written passes no check until it is filled in: every place says `FILL IN`, and
`tests/test_layout.py` refuses these words anywhere.
"""

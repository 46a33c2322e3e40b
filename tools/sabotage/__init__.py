r"""`nox -s sabotage`: faults that are planted on purpose, and what catches each.

`tests/sabotages/*.yml` lists them by subject: a text of one file that is replaced, the
checks that must notice, and what of them does. `read` reads the list, `tree` copies the
repository and plants, `judge` runs the checks, `__main__` goes through all and prints
the table.
"""

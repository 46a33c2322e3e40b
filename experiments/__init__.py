r"""Experiments: each module measures one claim or one group of claims.

A folder is a subject. A module of it declares one `experiment`; what begins with `_` is
shared in the folder, and what two folders share lies in `lab`. An experiment imports no
other. `python -m experiments list` names them all.
"""

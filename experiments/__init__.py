r"""Experiments: each module measures one claim or one group of claims.

A module lies directly in this package, and `seqref experiments list` finds it. What
it must define is said by `experiments.lab.experiment.Experiment`.
"""

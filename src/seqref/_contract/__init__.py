r"""What `seqref.testing` checks: one engine for layers, and single checks of any model.

Two kinds of thing are looked at. A layer has a `step`, which is its definition: a
`Subject` is a copy of it with states that it can reach, and `properties` goes through
all that the contract asks. Any other model is a black box: a `Probe` calls it on inputs
that differ in one thing, and says in the name of one property what the outputs show.
Both are copied and converted by `copies`, and both find the worst place of a difference
by `compare`.
"""

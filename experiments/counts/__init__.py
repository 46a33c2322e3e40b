r"""Parameters, conventions and anatomy: what can be counted."""

r"""Parts of the experiment `gradient_by_lag`: its networks and their Jacobians."""

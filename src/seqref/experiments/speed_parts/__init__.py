r"""How the experiments on speed time their contestants."""

r"""Parts of the experiment on memory by initialisation."""

r"""The bugs that run, each caught by its check."""

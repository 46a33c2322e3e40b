r"""Parts of `cpu_speed`: who runs, and the tables and the figure."""

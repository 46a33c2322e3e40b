r"""The parts of `continual_state`: its cells, and the task they are trained on."""

r"""Parts of the experiments that train networks on tasks of memory."""

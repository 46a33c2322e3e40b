r"""The parts that every experiment shares: claims, records, tables and figures."""

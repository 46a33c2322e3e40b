r"""Parts of the experiment `fused_recurrence_speed`: its clock, tables and figure."""

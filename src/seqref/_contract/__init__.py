r"""The properties that `seqref.testing.check_sequence_layer` holds a layer to."""

"""One module per paper; importing it registers what the paper adds."""

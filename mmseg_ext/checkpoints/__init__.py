"""Reading checkpoints without running code, fitting weights to a model, writing safely."""

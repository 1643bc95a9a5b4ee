"""Tables and reports of models, and measurements of operations and models against others."""

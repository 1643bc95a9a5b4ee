"""Tables of models, the report, operations and whole models measured against others."""

"""Reading a config, changing it from the command line, walking and checking it."""

"""The command line, a module a subject; each adds its own commands to the parser."""

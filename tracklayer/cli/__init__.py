"""The command line: ``tracklayer ...``."""

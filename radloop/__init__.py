"""Command line, settings and supervision of the processes that make up a Radloop server."""

__version__ = "0.1.0"

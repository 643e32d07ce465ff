"""One module a command of `radloop`."""

"""`python -m pellucid`."""

from pellucid.cli.main import entry_point

entry_point()

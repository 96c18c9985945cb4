"""The `pellucid` command: one file per verb."""

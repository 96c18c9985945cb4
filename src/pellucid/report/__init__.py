"""The report: one HTML file and its tables, made from what a study left on disk."""

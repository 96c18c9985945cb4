"""DICOM in and out: values, geometry, series, objects, and identities."""

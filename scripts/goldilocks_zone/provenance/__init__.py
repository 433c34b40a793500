"""Provenance of results: fingerprints of code, records of settings, attributes of files, archives."""

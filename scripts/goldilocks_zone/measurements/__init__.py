"""Measurements: from a study's settings to the NetCDF block of one job."""

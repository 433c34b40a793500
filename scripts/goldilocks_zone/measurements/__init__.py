"""Measurements: from the settings of a study to the NetCDF block of one job."""

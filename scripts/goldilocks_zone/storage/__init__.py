"""Files that are whole or absent, and NetCDF files."""

"""Files that are whole or absent, NetCDF files, and the vocabulary of variables."""

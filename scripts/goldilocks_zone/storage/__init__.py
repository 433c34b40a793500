"""Files that are whole or absent, NetCDF, and the vocabulary of variables. Imports no other room."""

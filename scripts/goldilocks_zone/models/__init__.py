"""Networks as functions of one parameter vector and as chains of layers, their initialisations and losses."""

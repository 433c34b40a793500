"""Networks, as functions of one parameter vector and as chains of layers; initialisations and losses."""

"""The ledger of claims: definitions, cells, estimators and verdicts."""

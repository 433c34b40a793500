"""Estimators of claims: functions of one cell of a study that return estimates."""

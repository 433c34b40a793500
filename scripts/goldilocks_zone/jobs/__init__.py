"""The life of a job on a machine: logs, signals, locks. Nothing here can change a number."""

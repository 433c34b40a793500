"""The life of a job on a machine: its log, its signals, its locks."""

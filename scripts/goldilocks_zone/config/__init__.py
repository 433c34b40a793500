"""Configuration and studies: keys, defaults, checks, and the blocks of a study."""

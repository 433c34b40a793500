"""The configuration: typed settings, checks, and the blocks into which a study is split."""

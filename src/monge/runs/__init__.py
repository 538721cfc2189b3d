"""Run folders: the specification, the files, and the trained run loaded from them."""

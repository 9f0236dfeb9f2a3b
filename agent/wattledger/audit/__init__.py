"""The commands that hold the books against what is published, and against themselves."""

"""Files: one atomic writer, one strict reader per format."""

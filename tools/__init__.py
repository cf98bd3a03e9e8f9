"""What fills this project's own pages. It is not part of the package."""

"""Server-rendered pages for the practice and for referring offices."""

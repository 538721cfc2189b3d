"""HTML and Markdown made of the files of a run, which it reads and does not compute."""

"""Where the tokens of a text went, drawn by one script: in the page, and in a notebook."""

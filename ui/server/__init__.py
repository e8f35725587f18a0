"""How the page is served, where it listens, what strangers may ask for, and the files it hands over."""

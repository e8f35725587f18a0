"""A run as a folder and a process: started, queued, stopped, gone on with, listed, renamed and removed."""

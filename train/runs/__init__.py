"""Runs, each a folder and a process: start, queue, stop, resume, list, rename, delete."""

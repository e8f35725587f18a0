"""Before a run: what the data hold, what about them would surprise, and what the run will take."""

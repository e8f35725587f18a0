"""What several tabs put on the page: the routing grid, the expert panel, the table of samples."""

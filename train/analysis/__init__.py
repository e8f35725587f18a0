"""Analysis of a data set from the command line, and its report as one HTML file."""

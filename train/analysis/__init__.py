"""A data set analysed from the command line, and its report as one HTML file."""

"""Pictures without a data set: which ones a command line names, and one table of what was said of each."""

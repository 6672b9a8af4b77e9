"""Images on disk: how they are decoded, the layouts of data sets, their checks, and the two data sets of a task."""

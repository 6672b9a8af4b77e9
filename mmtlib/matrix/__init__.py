"""Batches: the cells of a matrix file as executed notebooks and result files, on one machine or on a cluster."""

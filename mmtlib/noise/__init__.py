"""Label noise in numbers: of a whole labelling, cluster by cluster, person by person, cause by cause."""

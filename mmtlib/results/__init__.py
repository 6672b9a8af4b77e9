"""From result files to tables, findings, and published beside ours.

`runs` reads folders of runs, `tables` adds them up, `findings` says in words what they show, `comparison` puts the
paper's table beside them, `matrix_results` and `ablations` read the committed results of whole matrices, and
`deviation_list` holds what differs from the paper.
"""

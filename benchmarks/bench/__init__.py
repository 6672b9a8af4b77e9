"""`mmt bench`: each hot path against its plain baseline and against what this machine can do at best.

`suite` runs the benchmarks and writes a table, a JSON file and a plot; `search` and `step` hold the benchmarks,
`dense` and `plain_loop` the baselines written for them, `harness` what all share.
"""

"""The notebooks: what they share, their execution, and the folder that `mmt init` makes of them."""

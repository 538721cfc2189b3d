"""Convergence studies: what theory predicts, measured against ground truth.

A `Study` is a value: axes, one function that measures a cell, and claims with their sources.
`running` computes the cells, `verdicts` holds the claims against them, `report` writes tables,
figures and a page. `catalogue` lists the studies that monge brings.
"""

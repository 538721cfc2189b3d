"""How far samples are from data: estimators with intervals, floors and baselines."""

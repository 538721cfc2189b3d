"""Combined Cycle Power Plant: five columns, learned by an MLP in minutes."""

from __future__ import annotations

from monge.runs.spec import TrainSpec

ORIGIN = (
    "the UCI data set Combined Cycle Power Plant as csv with the header AT,V,AP,RH,PE, from "
    "https://archive.ics.uci.edu/dataset/294/combined+cycle+power+plant (CC BY 4.0)"
)

SPEC = TrainSpec(
    data="power_plant.csv",
    network="mlp:width=256,depth=4",
    steps=6000,
    batch=256,
)

"""Combined Cycle Power Plant: five columns, learned by an MLP in minutes.

    monge train power_plant.csv --recipe power_plant
    monge evaluate RUN

9,568 rows, all five columns dequantised by their steps; 1,914 rows held out by content.

Measured on one thread of an AMD Zen 3, seed 0: 2 minutes; 1,000 samples against 1,914 held-out
rows, energy distance -0.0010 with 95 % interval -0.0057 to 0.0037 (floor 0.0007, Gaussian 0.016;
p = 0.60), C2ST AUC 0.574 (0.538 to 0.608; floor 0.515, Gaussian 0.780), held-out log-density
-15.77 +- 0.06 nats in the file's units (mean and standard error, n = 1,000; a Gaussian -16.66).
"""

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

"""Laws with exact ground truth under any affine path: what every algorithm is first run on."""

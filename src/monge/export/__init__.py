"""Models that leave the house: a program of torch alone, or a pipeline of diffusers."""

"""Hyperparameter optimisation that loses nothing: a pure study decides, a journal remembers, Ray runs, MLflow shows."""

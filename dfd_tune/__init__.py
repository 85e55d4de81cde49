"""dfd-tune: hyperparameter search for deep feature distillation."""

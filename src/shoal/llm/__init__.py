"""Language models: the model, its sampler, tasks that ask, scorers that judge."""
